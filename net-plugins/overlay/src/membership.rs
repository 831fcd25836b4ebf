//! This host's place in a cluster: which node it is, and how the cluster is reached. Durable, in `state.db`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use berth_core::{Berth, CoreError};
use berth_store::{ClusterNode, unix_ms};
use berth_types::{BootId, NodeName, fnv64};
use serde::{Deserialize, Serialize};

use crate::cluster::embedded::{EXCHANGE_PORT, Embedded, EmbeddedConfig};
use crate::cluster::etcd::{EtcdCluster, EtcdConfig, Password, TlsFiles};
use crate::cluster::{Cluster, ClusterError, Listing};
use crate::model::{LAYOUT, Node};
use crate::underlay::Underlay;

/// Which node this host is. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// The node's name.
    pub name: NodeName,
    /// Which host it is, whatever it is called: made by chance when it first joined.
    pub identity: String,
    /// How often the node has joined anew.
    pub epoch: u64,
    /// The address its VXLAN frames leave from, where it was chosen; otherwise that of the way to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The largest packet of the link it is on, where it was chosen, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<u32>,
    /// How the cluster is reached.
    pub cluster: ClusterPlace,
}

/// How a cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterPlace {
    /// By an etcd.
    Etcd(EtcdPlace),
    /// By the peers that a file lists.
    Peers(PathBuf),
}

/// How an etcd is reached. Secrets are in files of their own, which are read at each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdPlace {
    /// Its members.
    pub endpoints: Vec<String>,
    /// The authority of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This node's certificate and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificate, if it is not the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with its password, on the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Membership {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// One that has joined nothing yet.
    pub fn new(name: NodeName, cluster: ClusterPlace) -> Result<Self, CoreError> {
        let identity = identity()?;
        Ok(Self {
            version: Self::VERSION,
            name,
            identity,
            epoch: 0,
            address: None,
            underlay_mtu: None,
            cluster,
        })
    }

    /// This host's; `None` where it is in no cluster.
    pub fn read(berth: &mut Berth) -> Result<Option<Self>, CoreError> {
        let node = berth.store_mut().read(|tx| tx.cluster_node().map_err(CoreError::from))?;
        let parsed = node.map(|node| serde_json::from_str(&node.payload)).transpose();
        parsed.map_err(|source| CoreError::Record { what: "this node's membership".to_owned(), source })
    }

    /// Writes it down.
    pub fn write(&self, berth: &mut Berth) -> Result<(), CoreError> {
        let what = || "this node's membership".to_owned();
        let payload =
            serde_json::to_string(self).map_err(|source| CoreError::Record { what: what(), source })?;
        let (name, identity, epoch) = (self.name.clone(), self.identity.clone(), self.epoch);
        let node = ClusterNode { name, identity, epoch, payload };
        berth.store_mut().write(|tx| tx.cluster_node_put(&node).map_err(CoreError::from))
    }

    /// Forgets it, and how the cluster was last seen.
    pub fn forget(berth: &mut Berth) -> Result<(), CoreError> {
        berth.store_mut().write(|tx| tx.cluster_forget().map_err(CoreError::from))
    }

    /// The way to the cluster. Nothing is sent yet to an etcd; peers are talked to from here on, on the calling task's runtime.
    /// `remembered` is how the cluster was last seen.
    ///
    /// # Errors
    ///
    /// What is known of the cluster cannot be used.
    pub async fn connect(
        &self,
        remembered: impl FnOnce() -> Listing,
    ) -> Result<Arc<dyn Cluster>, ClusterError> {
        match &self.cluster {
            ClusterPlace::Etcd(place) => Ok(Arc::new(EtcdCluster::new(place.config()?)?)),
            ClusterPlace::Peers(file) => {
                let (file, own) = (file.clone(), self.name.clone());
                let config = EmbeddedConfig { file, own, port: EXCHANGE_PORT };
                Ok(Arc::new(Embedded::start(config, remembered()).await?))
            }
        }
    }

    /// What the node says of itself in this boot.
    pub fn node(&self, boot: &BootId, underlay: &Underlay) -> Node {
        Node {
            v: LAYOUT,
            name: self.name.clone(),
            vtep4: underlay.v4,
            vtep6: underlay.v6,
            underlay_mtu: self.underlay_mtu.unwrap_or(underlay.mtu),
            public_key: None,
            identity: self.identity.clone(),
            boot: boot.clone(),
            epoch: self.epoch,
        }
    }
}

impl ClusterPlace {
    /// The hosts that are asked, as far as they can be told: the way to them is the way to the other nodes.
    pub fn hosts(&self) -> Vec<String> {
        let Self::Etcd(place) = self else { return Vec::new() };
        let host = |endpoint: &String| {
            let rest = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
            rest.to_owned()
        };
        place.endpoints.iter().map(host).collect()
    }
}

impl EtcdPlace {
    fn config(&self) -> Result<EtcdConfig, ClusterError> {
        let Self { endpoints, ca, own, server_name, user, password_file } = self.clone();
        let config = EtcdConfig::new(endpoints);
        let refused = |why: String| ClusterError::Config {
            cluster: format!("etcd at {}", self.endpoints.join(", ")),
            why,
        };
        let user = match (user, password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => {
                let text = std::fs::read_to_string(&file)
                    .map_err(|err| refused(format!("cannot read {}: {err}", file.display())))?;
                Some((user, Password::new(text.lines().next().unwrap_or_default())))
            }
            (Some(_), None) => return Err(refused("a user is given and no password file".to_owned())),
            (None, Some(_)) => return Err(refused("a password file is given and no user".to_owned())),
        };
        let tls = match (ca, own) {
            (Some(ca), own) => Some(TlsFiles { ca, own, server_name }),
            (None, Some(_)) => {
                return Err(refused("a certificate is given, and not that of etcd's authority".to_owned()));
            }
            (None, None) => None,
        };
        Ok(EtcdConfig { user, tls, ..config })
    }
}

/// 128 bits that no other host has.
fn identity() -> Result<String, CoreError> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|err| CoreError::Missing { what: format!("failed to read /dev/urandom: {err}") })?;
    // Chance alone is enough; where it failed silently, the time and the process are better than nothing.
    let salt = fnv64([unix_ms().to_string().as_str(), std::process::id().to_string().as_str()]);
    let chance = u128::from_be_bytes(bytes) ^ u128::from(salt);
    Ok(format!("{chance:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(place: EtcdPlace) -> Membership {
        Membership::new("n1".parse().unwrap(), ClusterPlace::Etcd(place)).unwrap()
    }

    #[test]
    fn what_reaches_an_etcd_is_checked_before_anything_is_sent() {
        let place = EtcdPlace { endpoints: vec!["http://192.0.2.1:2379".into()], ..EtcdPlace::default() };
        let connect = |place: EtcdPlace| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(etcd(place).connect(Listing::default))
        };
        assert_eq!(connect(place.clone()).unwrap().name(), "etcd at 192.0.2.1:2379");
        assert_eq!(etcd(place.clone()).cluster.hosts(), ["192.0.2.1:2379"]);
        let said = |place: EtcdPlace| connect(place).unwrap_err().to_string();
        let half = EtcdPlace { user: Some("root".into()), ..place.clone() };
        assert!(said(half).contains("a user is given and no password file"));
        let missing =
            EtcdPlace { user: Some("root".into()), password_file: Some("/nowhere".into()), ..place.clone() };
        assert!(said(missing).contains("cannot read /nowhere"));
        let own = EtcdPlace { own: Some(("/a".into(), "/b".into())), ..place };
        assert!(said(own).contains("not that of etcd's authority"));
    }

    #[test]
    fn each_host_has_an_identity_of_its_own() {
        assert_ne!(etcd(EtcdPlace::default()).identity, etcd(EtcdPlace::default()).identity);
    }
}
