//! The container runtime interface, as far as sandboxes go: what a kubelet calls.
//!
//! Messages carry the fields that are used here, with their numbers in `runtime/v1/api.proto` of Kubernetes' cri-api; the
//! others are skipped on reading and have their defaults on writing, as protobuf has it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::Status;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A kubelet waits minutes; nothing here should.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client that waits for each answer.
pub(crate) struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

/// A sandbox to be: a pod without its containers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) port_mappings: Vec<PortMapping>,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PortMapping {
    /// 0 TCP, 1 UDP, 2 SCTP.
    #[prost(int32, tag = "1")]
    pub(crate) protocol: i32,
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
    #[prost(string, tag = "4")]
    pub(crate) host_ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    pub(crate) cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) security_context: Option<LinuxSandboxSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxSandboxSecurityContext {
    #[prost(message, optional, tag = "1")]
    pub(crate) namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamespaceOption {
    /// 0 the pod's own, 2 the host's.
    #[prost(int32, tag = "1")]
    pub(crate) network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

/// A sandbox's id: the request of stop, remove and status, and the answer of run.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

impl Cri {
    /// A client of the runtime at `socket`. It connects at the first call, and again when the runtime was restarted.
    pub(crate) fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = runtime.block_on(async { endpoint.timeout(DEADLINE).connect_lazy() });
        Self { runtime, channel }
    }

    /// Starts a sandbox and returns its id.
    pub(crate) fn run(&self, config: &PodSandboxConfig) -> Result<String, Status> {
        let answer: PodSandboxId =
            self.call("RunPodSandbox", RunPodSandboxRequest { config: Some(config.clone()) })?;
        Ok(answer.id)
    }

    /// Stops a sandbox: its processes end and its network is taken away.
    pub(crate) fn stop(&self, id: &str) -> Result<(), Status> {
        self.call("StopPodSandbox", PodSandboxId { id: id.to_owned() }).map(|Nothing {}| ())
    }

    /// Removes a stopped sandbox.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Status> {
        self.call("RemovePodSandbox", PodSandboxId { id: id.to_owned() }).map(|Nothing {}| ())
    }

    /// The addresses of a sandbox, the main one first.
    pub(crate) fn addresses(&self, id: &str) -> Result<Vec<IpAddr>, Status> {
        let answer: PodSandboxStatusResponse =
            self.call("PodSandboxStatus", PodSandboxId { id: id.to_owned() })?;
        let network = answer.status.and_then(|status| status.network).unwrap_or_default();
        let more = network.additional_ips.iter().map(|more| &more.ip);
        Ok(std::iter::once(&network.ip).chain(more).filter_map(|ip| ip.parse().ok()).collect())
    }

    /// Why the network is not ready, or nothing if it is.
    pub(crate) fn network_complaint(&self) -> Result<Option<String>, Status> {
        let answer: StatusResponse = self.call("Status", Nothing {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|condition| condition.kind == "NetworkReady");
        Ok(network.filter(|condition| !condition.status).map(|condition| condition.message))
    }

    fn call<Q, A>(&self, method: &str, question: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        self.runtime.block_on(async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            Ok(client.unary(tonic::Request::new(question), path.parse().unwrap(), codec).await?.into_inner())
        })
    }
}
