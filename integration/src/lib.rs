//! Private hosts, containers in them, and the tests that use them.
