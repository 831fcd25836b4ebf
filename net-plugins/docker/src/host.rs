//! `rhost`: there to say what to do instead. A plugin cannot give a container the host's namespace.

use std::time::Duration;

use berth_plugin_http::{Empty, Plugin, Refusal};
use serde::Deserialize;

use crate::capabilities::Capabilities;

/// The socket's name.
pub const SOCKET: &str = "rhost.sock";

/// What people read who ask for it.
const INSTEAD: &str = "Docker gives a plugin no way to the host's own network: \
                       run the container with `--network host`, which needs no network to be created";

/// Whatever the request says.
#[derive(Deserialize)]
struct Anything {}

/// The driver, which refuses every network.
pub fn plugin() -> Plugin {
    let refuse = |_: Anything| Err::<Empty, _>(Refusal::new(INSTEAD));
    Plugin::implements(&["NetworkDriver"])
        .constant("NetworkDriver.GetCapabilities", Capabilities::LOCAL)
        .call("NetworkDriver.CreateNetwork", Duration::from_secs(5), refuse)
        .call("NetworkDriver.CreateEndpoint", Duration::from_secs(5), refuse)
        .call("NetworkDriver.Join", Duration::from_secs(5), refuse)
        .constant("NetworkDriver.DeleteNetwork", Empty {})
        .constant("NetworkDriver.DeleteEndpoint", Empty {})
        .constant("NetworkDriver.Leave", Empty {})
}
