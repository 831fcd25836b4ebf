//! Why a cluster did not do what it was asked.

use berth_types::{NetworkName, NodeName};

/// Why the cluster did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No member answered in time.
    #[error(
        "{cluster} does not answer: {why}
attachments of networks this node knows go on; new networks have to wait"
    )]
    Away {
        /// Which cluster, with what was tried.
        cluster: String,
        /// What was tried and what came of it.
        why: String,
    },
    /// It answered, and did not let this node in.
    #[error("{cluster} refuses this node: {why}")]
    Refused {
        /// Which cluster.
        cluster: String,
        /// Its words: user, password or certificate.
        why: String,
    },
    /// It answered, and is not known to be who it should be.
    #[error("{cluster} is not trusted: {why}")]
    Untrusted {
        /// Which cluster.
        cluster: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// What was given to reach it by cannot be used.
    #[error("{cluster} cannot be asked: {why}")]
    Config {
        /// Which cluster.
        cluster: String,
        /// Which option or file, and what is wrong with it.
        why: String,
    },
    /// Somebody else has it.
    #[error("{what} is taken: {holder} has it")]
    Taken {
        /// What was asked for, with its kind: `VNI 4096`, `subnet 10.0.0.0/24`, `network name `blue``.
        what: String,
        /// Who has it.
        holder: String,
    },
    /// It is used.
    #[error("network `{network}` is in use by {count} attachments: {some}")]
    InUse {
        /// The network.
        network: NetworkName,
        /// How many.
        count: usize,
        /// The first few, `CONTAINER on NODE`.
        some: String,
    },
    /// There is none.
    #[error("{cluster} has no network `{network}`")]
    NoNetwork {
        /// Which cluster.
        cluster: String,
        /// The name.
        network: NetworkName,
    },
    /// Another host says it is this node.
    #[error(
        "node name `{node}` is taken by a host at {address}
give this host another: berth node join --name NAME"
    )]
    Identity {
        /// The name.
        node: NodeName,
        /// The other's address.
        address: String,
    },
    /// The node joined anew since; this is an earlier one's request.
    #[error("node `{node}` has joined anew since (epoch {epoch} is over)")]
    Fenced {
        /// The node.
        node: NodeName,
        /// The epoch of the request.
        epoch: u64,
    },
    /// This kind of cluster cannot do it.
    #[error("{cluster} cannot {what}")]
    Unsupported {
        /// Which cluster.
        cluster: String,
        /// What was asked, and where to do it instead.
        what: String,
    },
}
