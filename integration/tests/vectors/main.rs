//! berth against the recorded behaviour of the CNI reference plugins 1.9.1: the same calls, the same answers and the same
//! kernel, but for the differences that [`answer`] and [`run`] name one by one.
//!
//! `BERTH_VECTOR_PLUGINS=/usr/lib/cni` runs the reference plugins installed there instead. Where they are of another version
//! than the recording, they differ from it.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever goes wrong here fails it"
)]

mod answer;
mod kernel;
mod recorded;
mod run;

/// A test for each recorded case.
macro_rules! cases {
    ($($test:ident = $name:literal,)*) => {
        const NAMES: &[&str] = &[$($name),*];

        $(#[test]
        fn $test() {
            run::run(&recorded::all()[$name]);
        })*
    };
}

cases! {
    bridge_default_gateway = "bridge-default-gateway",
    bridge_dns = "bridge-dns",
    bridge_force_address_on = "bridge-force-address-on",
    bridge_gateway_v6 = "bridge-gateway-v6",
    bridge_hairpin = "bridge-hairpin",
    bridge_hairpin_and_promisc = "bridge-hairpin-and-promisc",
    bridge_ip_args = "bridge-ip-args",
    bridge_ipmasq = "bridge-ipmasq",
    bridge_ipranges_capability = "bridge-ipranges-capability",
    bridge_l2_only = "bridge-l2-only",
    bridge_mac_args = "bridge-mac-args",
    bridge_name_taken = "bridge-name-taken",
    bridge_no_interface_up_with_ipam = "bridge-no-interface-up-with-ipam",
    bridge_plain = "bridge-plain",
    bridge_promisc = "bridge-promisc",
    bridge_routes = "bridge-routes",
    bridge_second_interface = "bridge-second-interface",
    bridge_two_containers = "bridge-two-containers",
    check_address_gone = "check-address-gone",
    check_link_gone = "check-link-gone",
    check_route_gone = "check-route-gone",
    conf_bad_name = "conf-bad-name",
    conf_keys_other_case = "conf-keys-other-case",
    conf_not_json = "conf-not-json",
    del = "del",
    del_before_add = "del-before-add",
    del_empty_netns = "del-empty-netns",
    del_gone_netns = "del-gone-netns",
    del_twice = "del-twice",
    env_bad_container = "env-bad-container",
    env_bad_ifname = "env-bad-ifname",
    env_no_container = "env-no-container",
    env_unknown_command = "env-unknown-command",
    ipam_bad_subnet = "ipam-bad-subnet",
    ipam_exhausted = "ipam-exhausted",
    ipam_host_bits = "ipam-host-bits",
    ipam_legacy_subnet = "ipam-legacy-subnet",
    ipam_requested_gateway = "ipam-requested-gateway",
    ipam_requested_taken = "ipam-requested-taken",
    ipam_resolvconf = "ipam-resolvconf",
    ipam_reuse_order = "ipam-reuse-order",
    ipam_small_subnet = "ipam-small-subnet",
    ipam_unknown_type = "ipam-unknown-type",
    loopback = "loopback",
    loopback_del = "loopback-del",
    portmap_check = "portmap-check",
    portmap_hostip = "portmap-hostip",
    portmap_none = "portmap-none",
    portmap_not_chained = "portmap-not-chained",
    portmap_one = "portmap-one",
    portmap_port_zero = "portmap-port-zero",
    portmap_udp = "portmap-udp",
    portmap_upper_proto = "portmap-upper-proto",
    version_0_2_0 = "version-0.2.0",
    version_0_2_0_l2 = "version-0.2.0-l2",
    version_0_3_0 = "version-0.3.0",
    version_0_3_1 = "version-0.3.1",
    version_0_4_0 = "version-0.4.0",
    version_1_1_0 = "version-1.1.0",
}

#[test]
fn every_recorded_case_is_a_test() {
    assert_eq!(recorded::all().keys().map(String::as_str).collect::<Vec<_>>(), NAMES);
}
