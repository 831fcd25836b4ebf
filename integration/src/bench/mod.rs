//! What the benchmarks share: figures with what they are to reach, calls without a client program, traffic, and an end that
//! leaves nothing.

mod figure;
mod guard;
mod memory;
mod socket;
mod traffic;
mod turns;

pub use figure::{Wanted, median, of_hundred, percentile, row, row_of_turns};
pub use guard::guarded;
pub use memory::{Memory, peak};
pub use socket::Socket;
pub use traffic::{Processors, rate, round_trips};
pub use turns::orders;
