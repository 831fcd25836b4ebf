//! Pools and leases.
