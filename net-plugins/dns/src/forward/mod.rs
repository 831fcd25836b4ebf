//! Questions that others answer.
//!
//! One thread asks for all: [`Jobs`] are handed to it by those who answer members, and it never waits for a single server.
//! The client's message is passed on as it is, under another number; so is the answer, under the client's. A question that is
//! already on its way is joined.
//!
//! | module | does |
//! |---|---|
//! | [`jobs`] | takes questions in, and bounds how many wait, in total and of one source |
//! | `flight` | one question on its way: whom to ask, when to ask the next |
//! | `health` | which servers have answered lately |
//! | `pool` | connected sockets with random ports, and random numbers in them |
//! | `stream` | one question by TCP, where the answer is too long for a datagram |
//! | `run` | the thread |
//! | [`resolv`] | the host's servers, read again when their file changes |

mod flight;
mod health;
mod jobs;
mod pool;
pub(crate) mod resolv;
mod run;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use jobs::{Jobs, Sink};
pub(crate) use run::Forwarder;
