//! File systems that refuse: full and read-only ones, each in a mount namespace of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use berth_store::{Dirs, Store, StoreError};
use berth_types::{BootId, NetworkName};
use common::Host;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::thread::UnshareFlags;

/// Runs `body` on a thread of its own, where a tmpfs with `options` is mounted that no other thread sees. It goes with
/// the thread.
fn on_tmpfs(options: &'static std::ffi::CStr, body: impl FnOnce(&Path, &Dirs) + Send) {
    assert!(rustix::process::geteuid().is_root(), "this test mounts a tmpfs and needs CAP_SYS_ADMIN");
    let host = Host::new();
    let root = host.root.path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for UnshareFlags::FILES, which is not used here"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount("tmpfs", root, "tmpfs", MountFlags::empty(), options).unwrap();
            body(root, &Dirs::under(root));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn boot() -> BootId {
    BootId::new("boot-1")
}

fn put(store: &mut Store, n: usize, payload: &str) -> Result<(), StoreError> {
    let name = NetworkName::new(format!("n{n}")).unwrap();
    store.write(|tx| tx.live_network_put(&name, None, payload))
}

#[test]
fn a_full_file_system_is_named_and_nothing_written_before_is_lost() {
    on_tmpfs(c"size=512k", |root, dirs| {
        let mut store = Store::open(dirs, boot()).unwrap();
        let payload = "x".repeat(8000);
        let (written, err) =
            (0..1000).find_map(|n| put(&mut store, n, &payload).err().map(|err| (n, err))).unwrap();
        assert!(matches!(err, StoreError::Full { .. }), "{err:?}");
        assert!(err.to_string().contains(root.to_str().unwrap()), "{err}");
        assert!(written > 5);
        assert_eq!(store.read(|tx| tx.live_networks()).unwrap().len(), written);
        drop(store);
        let mut store = Store::open(dirs, boot()).unwrap();
        assert_eq!(store.read(|tx| tx.live_networks()).unwrap().len(), written);
        assert!(store.recovered().is_empty());
        // Room is made, and the same store goes on.
        mount_remount(root, MountFlags::empty(), c"size=8m").unwrap();
        put(&mut store, written, &payload).unwrap();
    });
}

#[test]
fn a_file_system_without_room_for_the_first_file_is_full() {
    for options in
        [c"size=4k", c"size=16k", c"size=48k", c"nr_inodes=2", c"nr_inodes=3", c"nr_inodes=4", c"nr_inodes=5"]
    {
        on_tmpfs(options, move |_, dirs| match Store::open(dirs, boot()).map(drop) {
            Err(StoreError::Full { .. }) => {}
            other => panic!("{options:?}: {other:?}"),
        });
    }
}

#[test]
fn a_read_only_file_system_is_named_before_and_after_the_file_is_made() {
    on_tmpfs(c"size=8m", |root, dirs| {
        let mut store = Store::open(dirs, boot()).unwrap();
        put(&mut store, 0, "{}").unwrap();
        drop(store);
        mount_remount(root, MountFlags::RDONLY, c"").unwrap();
        let refused = Store::open(dirs, boot()).and_then(|mut store| put(&mut store, 1, "{}"));
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
        let refused = Store::open(&Dirs::under(&root.join("other")), boot()).map(drop);
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
        assert_eq!(
            std::fs::read_dir(&dirs.run)
                .unwrap()
                .filter(|entry| { entry.as_ref().unwrap().file_name().to_str().unwrap().contains("corrupt") })
                .count(),
            0,
            "an unwritable file is not a damaged one"
        );
    });
}
