//! Mounts in a mount namespace of the test's own, and loop devices of files of its own. As root.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a failure is a panic")]

use std::fs;
use std::path::Path;

use berth_volume_core::{
    Access, MountEntry, attached_loops, bind, bind_tree, loop_attach, loop_detach, make_private, mount_table,
    overlay, tmpfs, unmount,
};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread with a mount namespace of its own, with a tmpfs in it as scratch directory.
fn in_private_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        make_private(Path::new("/")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let scratch = tmpfs(dir.path(), 1 << 20, 0o700).unwrap();
        test(dir.path());
        scratch.unmount().unwrap();
    });
    thread.join().unwrap();
}

fn mounts_at(target: &Path) -> Vec<MountEntry> {
    mount_table().unwrap().into_iter().filter(|entry| entry.target == target).collect()
}

fn dir(parent: &Path, name: &str) -> std::path::PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn tmpfs_has_its_size_and_mode_and_goes_with_its_guard() {
    in_private_mounts(|scratch| {
        let target = dir(scratch, "a b");
        let mounted = tmpfs(&target, 64 << 10, 0o750).unwrap();
        let entry = mounts_at(&target).remove(0);
        assert_eq!(entry.fstype, "tmpfs");
        assert!(entry.super_options.contains(&"size=64k".to_owned()), "{entry:?}");
        assert!(entry.super_options.contains(&"mode=750".to_owned()), "{entry:?}");
        assert!(entry.has_option("nosuid") && entry.has_option("nodev"), "{entry:?}");
        drop(mounted);
        assert_eq!(mounts_at(&target), []);
    });
}

#[test]
fn mounts_stay_in_the_namespace_they_were_made_in() {
    in_private_mounts(|scratch| {
        let here = scratch.to_owned();
        assert!(mount_table().unwrap().iter().any(|entry| entry.target == here));
        let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!outside.contains(here.to_str().unwrap()));
    });
}

#[test]
fn bind_read_only_refuses_writes_and_keeps_nosuid() {
    in_private_mounts(|scratch| {
        let (source, target) = (dir(scratch, "source"), dir(scratch, "target"));
        let _mounted = bind(&source, &target, Access::ReadOnly).unwrap();
        fs::write(source.join("file"), "seen").unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "seen");
        assert_eq!(
            fs::write(target.join("file"), "").unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
        let entry = mounts_at(&target).remove(0);
        assert!(
            entry.has_option("ro") && entry.has_option("nosuid") && entry.has_option("nodev"),
            "{entry:?}"
        );
        assert_eq!(entry.root, Path::new("/source"));
    });
}

#[test]
fn bind_tree_takes_the_mounts_below_along() {
    in_private_mounts(|scratch| {
        let (source, target) = (dir(scratch, "source"), dir(scratch, "target"));
        let inner = tmpfs(&dir(&source, "inner"), 4096, 0o755).unwrap();
        let tree = bind_tree(&source, &target).unwrap();
        assert_eq!(mounts_at(&target.join("inner")).len(), 1);
        unmount(&target.join("inner")).unwrap();
        tree.unmount().unwrap();
        inner.unmount().unwrap();
    });
}

#[test]
fn overlay_shows_the_lower_and_writes_to_the_upper_directory() {
    in_private_mounts(|scratch| {
        let [lower, upper, work, target] =
            ["lower", "upper", "work", "target"].map(|name| dir(scratch, name));
        fs::write(lower.join("old"), "old").unwrap();
        let mounted = overlay(&lower, &upper, &work, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("old")).unwrap(), "old");
        fs::write(target.join("new"), "new").unwrap();
        mounted.unmount().unwrap();
        assert!(upper.join("new").exists() && !lower.join("new").exists());
    });
}

#[test]
fn a_busy_mount_is_not_taken_away_and_said_to_be_busy() {
    in_private_mounts(|scratch| {
        let target = dir(scratch, "busy");
        tmpfs(&target, 4096, 0o755).unwrap().keep();
        let open = fs::File::create(target.join("open")).unwrap();
        let err = unmount(&target).unwrap_err();
        assert_eq!(err.to_string(), format!("cannot unmount `{}`", target.display()));
        drop(open);
        unmount(&target).unwrap();
    });
}

#[test]
fn unmount_does_not_follow_a_symbolic_link() {
    in_private_mounts(|scratch| {
        let target = dir(scratch, "real");
        let mounted = tmpfs(&target, 4096, 0o755).unwrap();
        std::os::unix::fs::symlink(&target, scratch.join("link")).unwrap();
        assert!(unmount(&scratch.join("link")).is_err());
        assert_eq!(mounts_at(&target).len(), 1);
        mounted.unmount().unwrap();
    });
}

#[test]
fn a_missing_mount_point_is_named() {
    let err = tmpfs(Path::new("/nonexistent/berth"), 4096, 0o755).unwrap_err();
    assert_eq!(err.to_string(), "cannot mount tmpfs on `/nonexistent/berth`");
}

fn image(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("image");
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path.canonicalize().unwrap()
}

fn loops_of(image: &Path) -> usize {
    attached_loops().unwrap().iter().filter(|info| info.backing_file == image).count()
}

#[test]
fn a_loop_device_goes_with_its_guard() {
    let scratch = tempfile::tempdir().unwrap();
    let image = image(scratch.path());
    let attached = loop_attach(&image, Access::ReadWrite).unwrap();
    assert!(attached_loops().unwrap().iter().any(|i| i.device == attached.path() && i.backing_file == image));
    drop(attached);
    assert_eq!(loops_of(&image), 0);
}

#[test]
fn a_kept_loop_device_is_detached_by_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let image = image(scratch.path());
    let device = loop_attach(&image, Access::ReadOnly).unwrap().keep();
    assert_eq!(loops_of(&image), 1);
    loop_detach(&device).unwrap();
    assert_eq!(loops_of(&image), 0);
}

#[test]
fn attaching_a_missing_image_names_it() {
    let err = loop_attach(Path::new("/nonexistent/image"), Access::ReadOnly).unwrap_err();
    assert_eq!(err.to_string(), "cannot attach `/nonexistent/image` to a loop device");
}
