//! Docker's plugin protocol, as far as it is the same for networks, addresses and volumes: a POST to a method's name on
//! a Unix socket, JSON in, JSON out.
//!
//! - [`Socket`]: a listening socket in the plugin directory, or one that systemd opened;
//! - [`Plugin`]: methods by name, each a typed function that may block;
//! - [`Workers`]: the bounded number of threads such functions run on;
//! - [`serve`]: the three together, until told to stop.
//!
//! What is particular about the peer (dockerd, podman), and therefore done here for everybody:
//!
//! - no `Content-Type` is asked for: dockerd sends none. Bodies are read as bytes, up to [`BODY_LIMIT`];
//! - methods without arguments take an empty body, `{}` and anything else; methods with arguments refuse an empty one,
//!   which is what dockerd's retry of a broken connection sends;
//! - an error is status 500 with `{"Err": …, "Error": …}`: every caller reads one of the two, podman only the status;
//! - an unknown method is 404, which dockerd takes as "not implemented";
//! - each method has a deadline, because dockerd has none for network plugins: a call that hangs would hold the
//!   container's lock for ever. What is not done by then is answered with an error and goes on; methods are idempotent,
//!   so the caller may ask again;
//! - only root and the daemon's own user are answered.

#![forbid(unsafe_code)]

mod activation;
mod plugin;
mod serve;
mod socket;
mod workers;

pub use activation::{Inherited, InheritedError};
pub use plugin::{BODY_LIMIT, CONTENT_TYPE, Empty, Plugin, Refusal};
pub use serve::{serve, serve_router};
pub use socket::{Socket, SocketError, unlink_all};
pub use workers::{TimedOut, Workers};
