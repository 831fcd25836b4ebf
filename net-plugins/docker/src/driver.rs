//! The methods of a network driver, whatever its networks are: which there are, and that each has a core at hand.

use std::collections::BTreeMap;

use berth_core::Berth;
use berth_plugin_http::{Empty, Plugin};

use crate::capabilities::Capabilities;
use crate::cores::Cores;
use crate::refusal::Failure;
use crate::wire::{
    Allocated, CreateEndpoint, CreateNetwork, Created, Info, Join, Joined, OfEndpoint, OfNetwork,
};

/// What differs between network drivers. Each method may be called again with the same arguments, and by several at once.
pub(crate) trait NetworkDriver: Clone + Send + Sync + 'static {
    /// What it tells dockerd about itself.
    const CAPABILITIES: Capabilities;

    /// `CreateNetwork`.
    fn create_network(&self, berth: &mut Berth, args: CreateNetwork) -> Result<Empty, Failure>;
    /// `DeleteNetwork`.
    fn delete_network(&self, berth: &mut Berth, args: OfNetwork) -> Result<Empty, Failure>;
    /// `CreateEndpoint`: the link is there afterwards, in the host's namespace.
    fn create_endpoint(&self, berth: &mut Berth, args: CreateEndpoint) -> Result<Created, Failure>;
    /// `Join`: where the link goes.
    fn join(&self, berth: &mut Berth, args: Join) -> Result<Joined, Failure>;
    /// `ProgramExternalConnectivity`: the endpoint is its container's gateway, and its ports are published.
    fn program(&self, berth: &mut Berth, args: Join) -> Result<Empty, Failure>;
    /// `RevokeExternalConnectivity`.
    fn revoke(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure>;
    /// `Leave`.
    fn leave(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure>;
    /// `DeleteEndpoint`.
    fn delete_endpoint(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure>;
}

/// Adds the methods of `driver` to a socket's.
pub(crate) fn methods<D: NetworkDriver>(driver: &D, cores: &Cores, plugin: Plugin) -> Plugin {
    let plugin = plugin
        .constant("NetworkDriver.GetCapabilities", D::CAPABILITIES)
        .constant("NetworkDriver.AllocateNetwork", Allocated { options: BTreeMap::new() })
        .constant("NetworkDriver.FreeNetwork", Empty {})
        // Asked for several times for each container; dockerd understands nothing that a plugin could say.
        .constant("NetworkDriver.EndpointOperInfo", Info { value: Empty {} })
        .constant("NetworkDriver.DiscoverNew", Empty {})
        .constant("NetworkDriver.DiscoverDelete", Empty {});
    let mut serving = Serving { driver, cores, plugin };
    serving.call("NetworkDriver.CreateNetwork", D::create_network);
    serving.call("NetworkDriver.DeleteNetwork", D::delete_network);
    serving.call("NetworkDriver.CreateEndpoint", D::create_endpoint);
    serving.call("NetworkDriver.Join", D::join);
    serving.call("NetworkDriver.ProgramExternalConnectivity", D::program);
    serving.call("NetworkDriver.RevokeExternalConnectivity", D::revoke);
    serving.call("NetworkDriver.Leave", D::leave);
    serving.call("NetworkDriver.DeleteEndpoint", D::delete_endpoint);
    serving.plugin
}

struct Serving<'a, D> {
    driver: &'a D,
    cores: &'a Cores,
    plugin: Plugin,
}

impl<D: NetworkDriver> Serving<'_, D> {
    fn call<A, R>(&mut self, name: &'static str, method: fn(&D, &mut Berth, A) -> Result<R, Failure>)
    where
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
    {
        let driver = self.driver.clone();
        let plugin = std::mem::take(&mut self.plugin);
        self.plugin = self.cores.method(plugin, name, move |berth, args| method(&driver, berth, args));
    }
}
