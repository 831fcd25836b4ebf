//! Encrypted networks: carried where the kernel has ESP with AES-GCM, and refused by name elsewhere.
//!
//! Each test in [`carried`] and [`kept`] does one or the other, by what the kernel can that it runs on. The machine's may not;
//! so all of them run once more on Debian's, and there they have to carry.

mod carried;
mod kept;
mod stage;

use std::time::Duration;

use berth_integration::{Guest, is_other_kernel, on_other_kernel};

use self::stage::CARRIED;

/// Five times as long as with both cores of the machine to itself.
const LIMIT: Duration = Duration::from_secs(15 * 60);

#[test]
fn on_a_kernel_with_esp_encrypted_networks_are_carried() {
    assert!(!is_other_kernel(), "an emulator in an emulator");
    let guest = on_other_kernel("_where_the_kernel_can", LIMIT);
    println!("{guest}");
    assert_eq!(guest.code, Some(0), "{}", guest.verdict());
    let carried = guest.lines().filter(|line| line.ends_with(CARRIED)).count();
    assert!(carried > 0 && carried == tests_in(&guest), "{carried} carried an encrypted network");
}

/// How many tests ran: each harness says that of its one.
fn tests_in(guest: &Guest) -> usize {
    guest.lines().filter(|line| *line == "running 1 test").count()
}
