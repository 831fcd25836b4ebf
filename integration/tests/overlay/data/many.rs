//! Ten thousand attachments elsewhere.

use std::net::IpAddr;
use std::time::Instant;

use berth_integration::underlay_test;
use berth_overlay::entries::Holder;
use berth_types::MacAddr;

use super::stage::{Laid, Net, mtu_over, nodes};

const MANY: u16 = 10_000;

#[test]
fn ten_thousand_remote_attachments_are_programmed_found_right_and_put_right() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), &nodes);
        let net = &laid.net;
        let member = laid.join(1, "c1", 2);
        let synthetic = |number: u16| -> ([IpAddr; 2], Holder) {
            let [high, low] = number.to_be_bytes();
            let mac = MacAddr([2, 0x77, 0, 0, high, low]);
            let holder = Holder { node: nodes[1].name(), mac, is_node: false };
            ([net.v4(100 + high, low), net.v6(100 + high, low)], holder)
        };
        let start = Instant::now();
        nodes[0].learns(net, |entries| {
            for number in 0..MANY {
                let (addresses, holder) = synthetic(number);
                addresses.into_iter().for_each(|addr| drop(entries.address(addr, Some(holder.clone()))));
            }
        });
        println!("told of {MANY} in {:?}", start.elapsed());
        let expected = usize::from(MANY) * 3;
        for (what, count) in [("programmed", expected), ("found right", 0)] {
            let start = Instant::now();
            let report = nodes[0].reconcile(net);
            println!("{what} in {:?}", start.elapsed());
            assert_eq!((report.differences.count(), report.faults.len()), (count, 0));
        }
        // Somebody flushes half of it.
        nodes[0].host.run(&format!("bridge fdb flush dev {} self", net.device()));
        nodes[0].host.run(&format!("ip -4 neigh flush dev {} nud all", net.bridge()));
        let start = Instant::now();
        let report = nodes[0].reconcile(net);
        println!("{} put right in {:?}", report.differences.count(), start.elapsed());
        assert!(report.differences.count() >= 2 * usize::from(MANY), "{report:?}");
        assert!(nodes[0].reconcile(net).is_clean());
        assert_eq!(nodes[0].host.ping(member.addresses[0], 1), 1);
        // All of them go.
        nodes[0].learns(net, |entries| {
            for addr in (0..MANY).flat_map(|number| synthetic(number).0) {
                entries.address(addr, None);
            }
        });
        let report = nodes[0].reconcile(net);
        assert_eq!((report.differences.stray, report.faults.len()), (usize::from(MANY) * 4, 0));
        assert_eq!(nodes[0].host.ping(member.addresses[1], 1), 1);
        laid.leave(1, member);
        laid.unlay();
    });
}
