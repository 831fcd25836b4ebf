//! What people call networks and containers that an engine knows by numbers. Shown, and answered by the DNS server; never
//! decided by.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::{AttachmentKey, NetworkName};
use serde::{Deserialize, Serialize};

use crate::attach::payload;
use crate::berth::{Berth, parsed};
use crate::error::CoreError;
use crate::names::{Changed, tell_if_there};

/// What is known of a network or an attachment. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The network's or the container's name.
    pub name: String,
    /// The container's number, where it differs from the attachment's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Other names it is found by on its network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Everything that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    known: BTreeMap<AttachmentKey, Shown>,
}

impl Names {
    /// What is known of a network.
    pub fn network(&self, name: &NetworkName) -> Option<&Shown> {
        self.known.get(&key_of_network(name))
    }

    /// What is known of an attachment.
    pub fn attachment(&self, key: &AttachmentKey) -> Option<&Shown> {
        self.known.get(key)
    }

    /// The network that people call `name`, or `name` itself where it is no such name.
    pub fn find_network(&self, name: &NetworkName) -> NetworkName {
        let is_called = |(key, shown): &(&AttachmentKey, &Shown)| {
            shown.name == name.as_str() && **key == key_of_network(&key.network)
        };
        self.known.iter().find(is_called).map_or_else(|| name.clone(), |(key, _)| key.network.clone())
    }

    /// All keys something is known of.
    pub fn keys(&self) -> impl Iterator<Item = &AttachmentKey> {
        self.known.keys()
    }
}

/// The key under which a network's own name is kept: no engine has a container of that number.
pub fn key_of_network(name: &NetworkName) -> AttachmentKey {
    AttachmentKey {
        network: name.clone(),
        container: "0".parse().expect("a digit is a container id"),
        ifname: "network".parse().expect("seven letters are an interface name"),
    }
}

impl Berth {
    /// What is known.
    pub fn names(&mut self) -> Result<Names, CoreError> {
        let rows = self.store_mut().read(|tx| tx.shown().map_err(CoreError::from))?;
        // What cannot be read is not known.
        let read = |(key, text): (AttachmentKey, String)| Some((key, serde_json::from_str(&text).ok()?));
        Ok(Names { known: rows.into_iter().filter_map(read).collect() })
    }

    /// What is known of one network or attachment.
    pub fn name_of(&mut self, key: &AttachmentKey) -> Result<Option<Shown>, CoreError> {
        let text = self.store_mut().read(|tx| tx.shown_of(key).map_err(CoreError::from))?;
        text.map(|text| parsed(key, &text)).transpose()
    }

    /// Tells the DNS server of names that were learned or forgotten, where their networks have names.
    fn tell_names<'a>(&mut self, keys: impl Iterator<Item = &'a AttachmentKey>) -> Result<(), CoreError> {
        let named = self.networks()?.into_iter().filter(|network| network.names.is_some());
        let named: BTreeSet<NetworkName> = named.map(|network| network.name).collect();
        let mut changed = Changed::default();
        for key in keys.filter(|key| named.contains(&key.network)) {
            match *key == key_of_network(&key.network) {
                true => changed.networks.push(key.network.clone()),
                false => changed.attachments.push(key.clone()),
            }
        }
        if changed != Changed::default() {
            tell_if_there(self.dirs(), &changed);
        }
        Ok(())
    }

    /// Writes what was learned and forgets what is gone.
    pub fn names_write(
        &mut self,
        learned: &[(AttachmentKey, Shown)],
        gone: &[AttachmentKey],
    ) -> Result<(), CoreError> {
        if learned.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.store_mut().write(|tx| {
            for key in gone {
                tx.shown_remove(key)?;
            }
            for (key, shown) in learned {
                tx.shown_put(key, &payload(shown)?)?;
            }
            Ok::<_, CoreError>(())
        })?;
        self.tell_names(learned.iter().map(|(key, _)| key).chain(gone))
    }
}
