//! What is answered to whom: an immutable snapshot, and changes that share all they do not touch.

pub mod spec;
