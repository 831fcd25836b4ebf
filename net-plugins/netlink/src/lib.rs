//! Links, addresses, routes, namespaces and kernel switches.
