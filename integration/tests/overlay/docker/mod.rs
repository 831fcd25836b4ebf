//! Docker on several hosts, on networks of one cluster.

mod faults;
mod leaving;
mod others;
mod scenario;
mod stage;
