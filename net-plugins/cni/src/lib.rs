//! The CNI protocol and berth's CNI plugins.
