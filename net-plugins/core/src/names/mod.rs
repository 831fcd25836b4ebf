//! Names: what a network and an attachment say about them, and what the DNS server is told.
//!
//! The records say everything ([`NetworkNames`], [`MemberNames`]); what the server is to answer is one pure function of
//! them ([`served`]), so that its start, an attach and a repair agree. Whoever changes records of a network with names
//! writes them first and tells the server then, by name only; the server reads the records itself and answers once the
//! change is in every answer. A server that is not there needs no telling: it reads everything when it starts.
//!
//! An attach that is to have names starts the server where none runs. A detach never does, and never fails because of
//! the server.

mod call;
mod change;
mod elsewhere;
mod record;
mod seen;
mod served;
mod start;
mod wire;

pub use call::{CallError, LOG, SOCKET, ask, call, is_served};
pub use change::NamesRequest;
pub use elsewhere::Elsewhere;
pub(crate) use record::DNS_PORT;
pub use record::{
    MemberNames, NameError, NamesSource, NetworkNames, ServiceName, SplitDomain, host_name, server_addr,
};
pub use seen::{NamesState, ServedView};
pub use served::{Served, ServedMember, ServedNetwork, served};
pub use start::StartError;
pub use wire::{Applied, Changed, EntryView, ExplainedView, ListeningView, Question};

pub(crate) use change::{Absent, forget_flows, tell, tell_if_there};
