//! `rnone`: a network without a network. Containers on it have their loopback and nothing else.

use berth_plugin_http::{Empty, Plugin};
use serde::Serialize;

use crate::capabilities::Capabilities;
use crate::wire::Info;

/// The socket's name.
pub const SOCKET: &str = "rnone.sock";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Joined {
    /// Otherwise dockerd would join the container to its `docker_gwbridge`: the opposite of what was asked for.
    disable_gateway_service: bool,
}

/// The driver. It keeps nothing and has nothing to do.
pub fn plugin() -> Plugin {
    Plugin::implements(&["NetworkDriver"])
        .constant("NetworkDriver.GetCapabilities", Capabilities::LOCAL)
        .constant("NetworkDriver.CreateNetwork", Empty {})
        .constant("NetworkDriver.DeleteNetwork", Empty {})
        .constant("NetworkDriver.CreateEndpoint", Empty {})
        .constant("NetworkDriver.DeleteEndpoint", Empty {})
        .constant("NetworkDriver.EndpointOperInfo", Info { value: Empty {} })
        .constant("NetworkDriver.Join", Joined { disable_gateway_service: true })
        .constant("NetworkDriver.Leave", Empty {})
        .constant("NetworkDriver.DiscoverNew", Empty {})
        .constant("NetworkDriver.DiscoverDelete", Empty {})
}
