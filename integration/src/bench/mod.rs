//! What the benchmarks share: figures with what they are to reach, and calls without a client program.

mod figure;
mod socket;

pub use figure::{Wanted, median, row};
pub use socket::Socket;
