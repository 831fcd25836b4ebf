//! What berth changed of the host to forward for containers: switches, and uplinks that must not forward between each other.

use std::collections::BTreeSet;

use berth_netlink::sysctl::SysctlKey;
use berth_netlink::{LinkKind, Netlink, sysctl};
use berth_nft::Element;
use berth_types::{Family, IfName};

use crate::berth::Berth;
use crate::error::{Chain, CoreError};
use crate::switch;

impl Berth {
    /// Writes back the switches berth changed, where nobody changed them since.
    pub(crate) fn restore_switches(&mut self) -> Result<Vec<String>, CoreError> {
        let saved = self.store_mut().read(|tx| tx.sysctls_saved().map_err(CoreError::from))?;
        let mut errors = Vec::new();
        for row in saved.iter().rev() {
            let Some(key) = switch::of_record(&row.key) else { continue };
            match sysctl::read(&key) {
                Ok(now) if now == row.after => {
                    errors.extend(sysctl::write(&key, &row.before).err().map(|err| Chain(&err).to_string()));
                }
                Ok(_) => (),
                Err(err) if err.is_unsupported() => (),
                Err(err) => errors.push(Chain(&err).to_string()),
            }
        }
        self.store_mut().write(|tx| {
            for row in &saved {
                tx.sysctl_forget(&row.key)?;
            }
            tx.uplinks_forget()?;
            Ok::<_, CoreError>(())
        })?;
        Ok(errors)
    }

    /// Links that came after berth turned forwarding on and are to be closed too. A veth is none of them: it leads to
    /// another engine's container.
    pub(crate) fn late_uplinks(&mut self) -> Result<Vec<(Family, IfName)>, CoreError> {
        let (saved, closed) =
            self.store_mut().read(|tx| Ok::<_, CoreError>((tx.sysctls_saved()?, tx.uplinks_closed()?)))?;
        let turned_on = |key: SysctlKey| saved.iter().any(|row| row.key == key.to_string());
        let families = [(Family::V4, switch::forward_v4()), (Family::V6, switch::forward_v6())];
        let uplinks = crate::observe::uplinks(&Netlink::open()?)?;
        let uplinks: Vec<_> = uplinks.into_iter().filter(|link| link.kind != LinkKind::Veth).collect();
        let mut late = Vec::new();
        for (family, _) in families.into_iter().filter(|(_, key)| turned_on(key.clone())) {
            let links = uplinks.iter().map(|link| (family, link.name.clone()));
            late.extend(links.filter(|link| !closed.contains(link)));
        }
        Ok(late)
    }

    /// What keeps the host's uplinks from forwarding between each other, because berth turned forwarding on.
    pub(crate) fn closed_uplinks(&mut self) -> Result<BTreeSet<Element>, CoreError> {
        let closed = self.store_mut().read(|tx| tx.uplinks_closed().map_err(CoreError::from))?;
        Ok(closed.into_iter().map(|(family, link)| Element::ClosedRouter { family, link }).collect())
    }
}
