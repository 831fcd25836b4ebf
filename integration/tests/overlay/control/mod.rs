//! The control plane: who is in the cluster, what is unique, and what is left of it when something fails.

mod blocks;
pub(crate) mod etcd;
mod failures;
mod joining;
mod keeping;
mod nodes;
mod peers;
mod records;
mod secrets;
mod unique;
