//! The constant ruleset and its elements.
