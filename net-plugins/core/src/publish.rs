//! Publishes ports for a container that another plugin attached (`rportmap` behind any main plugin), or that
//! `rbridge` attached in an earlier step of the same chain.

use std::net::IpAddr;

use berth_netlink::Netlink;
use berth_netlink::port_probe::{Probe, try_bind};
use berth_nft::NftSocket;
use berth_store::lock::HostLock;
use berth_store::{AttachmentRow, AttachmentState, NewAttachment, Tx};
use berth_types::{AttachmentKey, ContainerId, IfName, PublishedPort};
use ipnetwork::IpNetwork;

use crate::attach::{claim, payload};
use crate::attachment::{AttachmentRecord, PortSpec};
use crate::berth::Berth;
use crate::detach::remove_elements_by;
use crate::elements;
use crate::error::{Chain, CoreError};
use crate::execute::execute;
use crate::flows::flush_removed;
use crate::kernel::Kernel;
use crate::listeners::refuse_listeners;
use crate::network::subnet_of;
use crate::plan::plan_published;
use crate::published::{Held, PortsRecord, Published};
use crate::request::{PortChoice, PublishRequest};
use crate::step::{Plan, Step};

impl Berth {
    /// Publishes. Asked again for the same, it does nothing; asked for something else, it replaces what was there.
    pub fn publish(&mut self, request: &PublishRequest) -> Result<(), CoreError> {
        let _attachment = self.attachment_lock(&request.key)?;
        let _host = HostLock::shared(self.dirs())?;
        let mut published = self.published_for(request)?;
        let had = self.held_of(&request.key)?;
        let before = had.as_ref().map(|(_, held)| held.published().ports.clone()).unwrap_or_default();
        let choices = request.choices_left(&before, &mut published);
        if let Some((row, held)) = &had {
            let same = choices.is_empty()
                && held.published().asked() == published.asked()
                && row.state == AttachmentState::Ready;
            let wanted = elements::of_published(&request.key, &published);
            if same && crate::rules::missing(&wanted)?.is_empty() {
                return Ok(());
            }
            self.take_back(row, held)?;
        }
        let held = had.map(|(_, held)| held);
        let recorded = self.record_unless_dead(request, held, &choices, &mut published)?;
        if let Err(err) = self.lay_ports(request, &published, recorded.as_ref()) {
            self.unpublish_locked(&request.key)?;
            return Err(err);
        }
        Ok(())
    }

    /// Records the ports. A port whose holder is gone without having been taken back is taken back now.
    fn record_unless_dead(
        &mut self,
        request: &PublishRequest,
        had: Option<Held>,
        choices: &[PortChoice],
        published: &mut Published,
    ) -> Result<Option<AttachmentRecord>, CoreError> {
        // Each round takes one dead holder away.
        for _ in 0..16 {
            match self.record_published(request, had.clone(), choices, published) {
                Err(CoreError::PortTaken(taken)) if taken.holder != request.key => {
                    let holder = self.store_mut().read(|tx| tx.attachment(&taken.holder))?;
                    if holder.is_none_or(|holder| self.is_live(&holder).unwrap_or(true)) {
                        return Err(CoreError::PortTaken(taken));
                    }
                    tracing::info!(holder = %taken.holder, port = taken.port, "gone without a word; its ports are taken back");
                    self.detach(&taken.holder)?;
                }
                other => return other,
            }
        }
        self.record_published(request, had, choices, published)
    }

    fn record_published(
        &mut self,
        request: &PublishRequest,
        had: Option<Held>,
        choices: &[PortChoice],
        published: &mut Published,
    ) -> Result<Option<AttachmentRecord>, CoreError> {
        let attached = had.as_ref().is_some_and(Held::stays_without_ports);
        let begun = match had.filter(|_| attached) {
            // With br_netfilter, what a container sends to its own published port goes back out of the port it came by.
            Some(Held::Bridge(mut record)) => {
                let some = !published.ports.is_empty() || !choices.is_empty();
                record.port.hairpin |= request.hairpin_port && some;
                Held::Bridge(record)
            }
            Some(held) => held,
            None => Held::Ports(PortsRecord {
                published: published.clone(),
                ..PortsRecord::new(request.key.clone())
            }),
        };
        let new = NewAttachment {
            key: request.key.clone(),
            sandbox: request.sandbox.clone(),
            host_ifname: None,
            payload: payload(&begun)?,
        };
        let targets: Vec<IpAddr> = request.targets.iter().map(IpNetwork::ip).collect();
        self.store_mut().write(|tx| {
            if !attached {
                tx.attachment_begin(&new)?;
            }
            // Nothing of a round that is rolled back stays.
            let mut all = published.clone();
            claim(tx, &request.key, &mut all)?;
            for choice in choices {
                all.ports.extend(choose(tx, &request.key, choice, &targets)?);
                claim(tx, &request.key, &mut all)?;
            }
            let held = begun.with_published(all.clone());
            tx.attachment_ready(&request.key, &payload(&held)?)?;
            *published = all;
            Ok::<_, CoreError>(match held {
                Held::Bridge(record) => Some(*record),
                Held::Ports(_) => None,
            })
        })
    }

    fn lay_ports(
        &mut self,
        request: &PublishRequest,
        published: &Published,
        record: Option<&AttachmentRecord>,
    ) -> Result<(), CoreError> {
        refuse_listeners(&request.key, &published.ports)?;
        let mut kernel = Kernel::open(self, None)?;
        let link = match (&request.link, request.masquerade_hairpin) {
            (_, false) => None,
            (Some(link), true) => Some(link.clone()),
            (None, true) => link_toward(&request.targets)?,
        };
        let mut plan = Plan::default();
        if let Some(AttachmentRecord { host_ifname, bridge, port, .. }) =
            record.filter(|record| request.hairpin_port && record.port.hairpin)
        {
            let PortSpec { isolated, .. } = *port;
            let (port, bridge) = (host_ifname.clone(), bridge.clone());
            plan.push(Step::PortAdd { port, bridge, hairpin: true, isolated });
        }
        plan.append(plan_published(&request.key, published, link.as_ref()));
        execute(&mut kernel, &plan)?.keep();
        Ok(())
    }

    /// Takes back what is published for `key`; nothing published is success.
    pub fn unpublish(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        let attachment = self.attachment_lock(key)?;
        let Some((row, held)) = self.held_of(key)? else { return Ok(()) };
        let had = *held.published() != Published::default();
        self.take_back(&row, &held)?;
        drop(attachment);
        if had { self.promote_standbys(&key.container) } else { Ok(()) }
    }

    /// Publishes what other interfaces of `container` have on standby and may have now. Called without any lock: two
    /// interfaces that go at once must not wait for each other.
    pub(crate) fn promote_standbys(&mut self, container: &ContainerId) -> Result<(), CoreError> {
        let waiting = |(row, held): &(AttachmentRow, Held)| {
            row.state == AttachmentState::Ready && !held.published().standby.is_empty()
        };
        let keys =
            self.store_mut().read(|tx| tx.attachments_of_container(container).map_err(CoreError::from))?;
        for key in keys {
            let _attachment = self.attachment_lock(&key)?;
            let found = match self.held_of(&key) {
                Ok(found) => found.filter(waiting),
                Err(err) => {
                    tracing::error!(attachment = %key, error = %Chain(&err), "record cannot be read");
                    continue;
                }
            };
            let Some((row, held)) = found else { continue };
            self.promote(&row.key, held)?;
        }
        Ok(())
    }

    fn promote(&mut self, key: &AttachmentKey, held: Held) -> Result<(), CoreError> {
        let mut published = held.published().clone();
        published.ports.append(&mut published.standby);
        let bridge = match &held {
            Held::Bridge(record) => Some(record.bridge.clone()),
            Held::Ports(_) => None,
        };
        self.store_mut().write(|tx| {
            claim(tx, key, &mut published)?;
            tx.attachment_ready(key, &payload(&held.with_published(published.clone()))?)?;
            Ok::<_, CoreError>(())
        })?;
        let mut kernel = Kernel::open(self, None)?;
        execute(&mut kernel, &plan_published(key, &published, bridge.as_ref()))?.keep();
        Ok(())
    }

    fn unpublish_locked(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        match self.held_of(key)? {
            Some((row, held)) => self.take_back(&row, &held),
            None => Ok(()),
        }
    }

    /// Removes rules, claims and, unless berth attached or named the container, the record.
    fn take_back(&mut self, row: &AttachmentRow, held: &Held) -> Result<(), CoreError> {
        let key = held.key();
        if row.state == AttachmentState::Deleting {
            return self.detach_locked(key).map(drop);
        }
        if !held.stays_without_ports() {
            return self.detach_locked(key).map(drop);
        }
        if *held.published() == Published::default() {
            return Ok(());
        }
        let mut socket = NftSocket::open()?;
        remove_elements_by(&mut socket, elements::of_published(key, held.published()))?;
        flush_removed(&mut socket, &held.published().ports)?;
        let text = payload(&held.clone().with_published(Published::default()))?;
        self.store_mut().write(|tx| {
            tx.ports_release(key)?;
            tx.attachment_ready(key, &text)?;
            Ok(())
        })
    }

    fn published_for(&mut self, request: &PublishRequest) -> Result<Published, CoreError> {
        let PublishRequest {
            key: _,
            ports,
            choices: _,
            targets,
            masquerade_hairpin,
            hairpin_port: _,
            masquerade_all,
            link: _,
            sandbox: _,
        } = request;
        let addrs: Vec<IpAddr> = targets.iter().map(IpNetwork::ip).collect();
        let ours = self.networks()?;
        let on_our_bridge =
            |net: &IpNetwork| ours.iter().any(|network| network.subnets.contains(&subnet_of(*net)));
        let hairpin = targets.iter().filter(|net| *masquerade_hairpin && !on_our_bridge(net));
        Ok(Published {
            ports: ports.iter().flat_map(|port| port.resolve(&addrs)).collect(),
            standby: Vec::new(),
            hairpin: hairpin.map(|net| (subnet_of(*net), net.ip())).collect(),
            masquerade_all: if *masquerade_all { addrs } else { Vec::new() },
        })
    }

    /// What of `request` is not in place, in sentences; nothing where all is well.
    pub fn check_published(&mut self, request: &PublishRequest) -> Result<Vec<String>, CoreError> {
        let wanted = self.published_for(request)?;
        let Some((_, held)) = self.held_of(&request.key)? else {
            return Ok(vec![format!("nothing is published for {}", request.key)]);
        };
        let asked = held.published().asked();
        let lost = wanted.ports.iter().filter(|port| !asked.contains(port));
        let mut wrong: Vec<String> = lost.map(|port| format!("{port} is not published")).collect();
        let missing = crate::rules::missing(&elements::of_published(&request.key, held.published()))?;
        wrong.extend(missing.into_iter().map(|element| format!("the ruleset lacks {element}")));
        Ok(wrong)
    }
}

impl PublishRequest {
    /// The choices that `before` does not answer. What it answers is added to `published`: asked twice, the same ports
    /// are published.
    fn choices_left(&self, before: &[PublishedPort], published: &mut Published) -> Vec<PortChoice> {
        let targets: Vec<IpAddr> = self.targets.iter().map(IpNetwork::ip).collect();
        let mut left = Vec::new();
        for choice in &self.choices {
            let had = before.iter().map(|port| choice.at(port.host_port).resolve(&targets)).find(|ports| {
                let in_range = |port: &PublishedPort| (choice.first..=choice.last).contains(&port.host_port);
                let still = |port: &PublishedPort| before.contains(port) && !published.ports.contains(port);
                !ports.is_empty() && ports.iter().all(|port| in_range(port) && still(port))
            });
            match had {
                Some(ports) => published.ports.extend(ports),
                None => left.push(*choice),
            }
        }
        left
    }
}

/// The first port of `choice` that nobody has published and nobody listens on, with every family it is published in.
fn choose(
    tx: &Tx<'_>,
    key: &AttachmentKey,
    choice: &PortChoice,
    targets: &[IpAddr],
) -> Result<Vec<PublishedPort>, CoreError> {
    for number in choice.candidates() {
        let ports = choice.at(number).resolve(targets);
        let mut free = true;
        for port in &ports {
            free = free
                && tx.port_holder(port.proto, port.host_addr, number)?.is_none()
                && !matches!(try_bind(port.proto, port.host_addr, number), Ok(Probe::Taken));
        }
        if free {
            return Ok(ports);
        }
    }
    let PortChoice { proto, container_port, first, last, .. } = choice;
    Err(CoreError::Missing {
        what: format!(
            "no port of the host from {first} to {last} is free for port {container_port}/{proto} of {key}"
        ),
    })
}

/// The host link by which the container is reached.
fn link_toward(targets: &[IpNetwork]) -> Result<Option<IfName>, CoreError> {
    let Some(v4) = targets.iter().find(|net| net.is_ipv4()) else { return Ok(None) };
    Ok(Netlink::open()?.resolve_link_toward(v4.ip())?.map(|link| link.name))
}
