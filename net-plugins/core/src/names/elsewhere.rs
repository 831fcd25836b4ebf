//! Members of this host's networks that are on other hosts. Whoever hears of them writes them here; they are answered like
//! those of this host, and nothing else is made of them.

use std::net::IpAddr;

use berth_types::{AttachmentKey, NetworkName};
use serde::{Deserialize, Serialize};

use super::change::tell_if_there;
use super::record::ServiceName;
use super::served::ServedMember;
use super::wire::Changed;
use crate::attach::payload;
use crate::berth::{Berth, parsed};
use crate::error::{Chain, CoreError};

/// With more changes than this it is cheaper for the server to read everything than to look each up.
const ONE_BY_ONE: usize = 256;

/// What is known of a container on another host. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its names, the one it is best known by first.
    pub names: Vec<String>,
    /// Its addresses on the network.
    pub addrs: Vec<IpAddr>,
    /// What its ports are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
}

impl Elsewhere {
    pub(super) fn served(self, key: AttachmentKey) -> ServedMember {
        let Self { names, addrs, services } = self;
        ServedMember {
            record: key.clone(),
            key,
            names,
            addrs,
            servers: Vec::new(),
            services,
            elsewhere: true,
        }
    }
}

impl Berth {
    /// Who of `network` is elsewhere. What cannot be read is logged and left out.
    pub fn elsewhere_on(
        &mut self,
        network: &NetworkName,
    ) -> Result<Vec<(AttachmentKey, Elsewhere)>, CoreError> {
        let rows = self.store_mut().read(|tx| tx.elsewhere_on(network).map_err(CoreError::from))?;
        let read = |(key, text): (AttachmentKey, String)| readable(&key, &text).map(|one| (key, one));
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Tells `each` of everybody who is elsewhere, one at a time: there may be tens of thousands.
    pub fn elsewhere_each(
        &mut self,
        mut each: impl FnMut(AttachmentKey, Elsewhere),
    ) -> Result<(), CoreError> {
        let told = |key, text: String| {
            if let Some(elsewhere) = readable(&key, &text) {
                each(key, elsewhere);
            }
        };
        self.store_mut().read(|tx| tx.elsewhere_each(told).map_err(CoreError::from))
    }

    pub(super) fn elsewhere_of(&mut self, key: &AttachmentKey) -> Result<Option<Elsewhere>, CoreError> {
        let text = self.store_mut().read(|tx| tx.elsewhere_of(key).map_err(CoreError::from))?;
        text.map(|text| parsed(key, &text)).transpose()
    }

    /// Writes who came or changed and forgets who is gone; the DNS server is told, and answers so when this returns.
    pub fn elsewhere_write(
        &mut self,
        known: &[(AttachmentKey, Elsewhere)],
        gone: &[AttachmentKey],
    ) -> Result<(), CoreError> {
        if known.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.store_mut().write(|tx| {
            for key in gone {
                tx.elsewhere_remove(key)?;
            }
            for (key, elsewhere) in known {
                tx.elsewhere_put(key, &payload(elsewhere)?)?;
            }
            Ok::<_, CoreError>(())
        })?;
        let keys = known.iter().map(|(key, _)| key).chain(gone);
        let changed = match known.len() + gone.len() {
            count if count > ONE_BY_ONE => Changed { all: true, ..Changed::default() },
            _ => Changed { attachments: keys.cloned().collect(), ..Changed::default() },
        };
        tell_if_there(self.dirs(), &changed);
        Ok(())
    }
}

fn readable(key: &AttachmentKey, text: &str) -> Option<Elsewhere> {
    let read = parsed(key, text);
    read.inspect_err(|err| {
        tracing::error!(attachment = %key, error = %Chain(err), "record of a member elsewhere cannot be read");
    })
    .ok()
}
