//! Options that are taken, and options that are refused: tables, then anything at all.

use super::*;
use proptest::prelude::*;

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// `key=value` by white space.
fn parse(line: &str) -> Result<Spec, OptionError> {
    parse_options(&options(
        &line.split_whitespace().map(|word| word.split_once('=').unwrap()).collect::<Vec<_>>(),
    ))
}

fn refused(line: &str) -> String {
    match parse(line) {
        Ok(spec) => panic!("`{line}` was taken as {spec:?}"),
        Err(err) => err.to_string(),
    }
}

#[test]
fn what_docker_teaches_is_taken() {
    for (line, kind) in [
        ("", "directory"),
        ("uid=1000 gid=1000 mode=0750", "directory"),
        ("size=10G", "sized"),
        ("size=512m fs=xfs", "sized"),
        ("size=1G sparse=true uid=999", "sized"),
        ("type=none o=bind device=/srv/data", "bind"),
        ("type=none o=bind,ro device=/srv/data", "bind"),
        ("type=none o=rbind,rslave,noexec device=/srv/data", "bind"),
        ("type=none o=bind device=/srv/data create=true uid=5 mode=1777", "bind"),
        ("type=tmpfs device=tmpfs", "tmpfs"),
        ("type=tmpfs device=tmpfs o=size=100m,uid=1000", "tmpfs"),
        ("type=tmpfs o=size=1M,mode=1777,uid=1,gid=2,nr_inodes=100,noexec", "tmpfs"),
        ("type=tmpfs size=1M", "tmpfs"),
        ("type=tmpfs size=1M o=size=1M", "tmpfs"),
        ("type=ext4 device=/dev/sdb1", "device"),
        ("type=xfs device=/dev/sdb1 o=noatime,nouuid", "device"),
        ("type=btrfs device=/images/a.img o=ro,subvol=data/one,compress=zstd:3", "device"),
    ] {
        assert_eq!(parse(line).map(|spec| spec.kind()), Ok(kind), "{line}");
    }
}

#[test]
fn values_are_what_was_given() {
    assert_eq!(
        parse("type=tmpfs o=size=1M,mode=700,uid=7,nr_inodes=9,ro gid=8").unwrap(),
        Spec::Tmpfs(TmpfsSpec {
            size: Some(1 << 20),
            inodes: Some(9),
            top: Top { uid: Some(7), gid: Some(8), mode: Some(0o700) },
            flags: Flags { read_only: true, ..Flags::default() },
        })
    );
    assert_eq!(
        parse("type=none o=bind device=//srv///data/").unwrap(),
        Spec::Bind(BindSpec {
            device: "/srv/data".into(),
            recursive: false,
            slave: false,
            flags: Flags::default(),
            create: None,
        })
    );
    let Spec::Sized(sized) = parse("size=10000001").unwrap() else { panic!() };
    assert_eq!(sized.size, 10_002_432, "whole blocks");
}

/// Row S38 of the reliability catalogue, and more of the kind: for every mounted kind.
#[test]
fn words_that_mean_something_to_somebody_else_are_refused() {
    let hostile = [
        "remount",
        "suid",
        "dev",
        "suid,dev",
        "nosuid,suid",
        "loop",
        "loop=/dev/loop0",
        "helper=sh",
        "uhelper=x",
        "x-mount.mkdir",
        "x-systemd.automount",
        "X-anything",
        "_netdev",
        "user",
        "users",
        "owner",
        "auto",
        "defaults",
        "upperdir=/etc",
        "lowerdir=/",
        "workdir=/",
        "credentials=/etc/shadow",
        "shared",
        "rshared",
        "unbindable",
        "move",
        "rec",
        "sync",
        "mand",
        "strictatime",
        "bind,",
        ",bind",
        "bind,,ro",
        "",
        " ",
        "ro ",
        "ro\n",
        "ro\nsuid",
        "ro\0suid",
        "bind\t",
        "RO",
        "ro=1",
        "bind=/etc",
        "size",
        "size=",
        "mode",
        "errors=panic",
        "data=writeback",
        "journal_dev=8:1",
        "usrquota",
        "subvol=",
        "subvol=a b",
        "subvol=a\"b",
        "subvol=a\\054suid",
        "context=system_u",
        "fscontext=x",
        "ro,rw",
        "exec,noexec",
        "fd=3",
        "rootmode=0",
        "hidepid=0",
        "addr=10.0.0.1",
        "$(reboot)",
        "`reboot`",
        ";",
        "size=1M;suid",
        "nr_inodes=-1",
    ];
    for word in hostile {
        for kind in ["none", "tmpfs", "ext4", "xfs", "btrfs"] {
            let text = if kind == "none" { format!("bind,{word}") } else { word.to_owned() };
            let asked = options(&[
                ("type", kind),
                ("device", if kind == "tmpfs" { "tmpfs" } else { "/srv/x" }),
                ("o", &text),
            ]);
            let taken = parse_options(&asked);
            assert!(taken.is_err(), "`o={text:?}` was taken by {kind}: {taken:?}");
        }
    }
    // Words of another kind.
    for line in [
        "type=ext4 device=/dev/sdb o=bind",
        "type=ext4 device=/dev/sdb o=rw,bind",
        "type=tmpfs o=bind",
        "type=tmpfs o=subvol=x",
        "type=none device=/x o=bind,size=1M",
        "type=none device=/x o=ro",
        "type=ext4 device=/dev/sdb o=nouuid",
        "type=ext4 device=/dev/sdb o=size=1M",
    ] {
        refused(line);
    }
}

#[test]
fn devices_that_are_no_plain_path_are_refused() {
    for device in [
        "",
        ".",
        "..",
        "/",
        "//",
        "/.",
        "/..",
        "relative/path",
        "./x",
        "/srv/../etc",
        "/srv/./x",
        "/srv/x/..",
        "/srv/x\n",
        "/srv/\0",
        "//server/share",
        "host:/export",
        "\u{1b}[2J",
        "~/x",
        "file:///srv",
    ] {
        let asked = options(&[("type", "none"), ("o", "bind"), ("device", device)]);
        // Two slashes at the front are one to the kernel.
        let taken = parse_options(&asked);
        assert!(taken.is_err() || device == "//server/share", "{device:?} was taken: {taken:?}");
    }
}

#[test]
fn types_and_keys_and_values_that_are_not_known_are_refused_with_what_is() {
    for (line, words) in [
        ("type=nfs device=:/x o=addr=10.0.0.1", "not supported"),
        ("type=overlay device=overlay o=lowerdir=/", "not supported"),
        ("type=proc device=proc", "not supported"),
        ("type=ext4", "needs `device`"),
        ("type=none device=/x", "o=bind"),
        ("size=0", "too small"),
        ("size=1k", "too small"),
        ("size=100M fs=xfs", "300M"),
        ("size=-1", "not a size"),
        ("size=99999999999999999999G", "not a size"),
        ("size=10G fs=btrfs", "ext4 or xfs"),
        ("size=10G o=ro", "needs `type`"),
        ("fs=ext4", "needs `size`"),
        ("device=/x", "needs `type`"),
        ("create=true", "needs"),
        ("uid=-1", "a number"),
        ("uid=4294967295", "a number"),
        ("uid=root", "a number"),
        ("mode=999", "octal"),
        ("mode=4755", "octal"),
        ("mode=", "octal"),
        ("mode=+755", "octal"),
        ("type=none o=bind device=/x uid=5", "create=true"),
        ("type=none o=bind device=/x create=yes", "true or false"),
        ("type=tmpfs device=/dev/sda", "`tmpfs`"),
        ("type=tmpfs size=1M o=size=2M", "contradict"),
        ("type=tmpfs o=size=0", "too small"),
        ("type=tmpfs o=size=50%", "not allowed"),
        ("type=tmpfs o=nr_inodes=0", "too small"),
        ("colour=blue", "allowed: uid, gid, mode"),
        ("size=1G colour=blue", "allowed: size, fs"),
        ("Type=tmpfs", "no option `Type`"),
    ] {
        let text = refused(line);
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn an_error_shows_no_control_characters_and_is_short() {
    let text = parse_options(&options(&[("type", &"\x1b[2J".repeat(100_000))])).unwrap_err().to_string();
    assert!(text.len() < 1000 && !text.contains('\x1b'), "{text}");
}

proptest! {
    /// Whatever is asked: no panic, and what is mounted has only words from the lists.
    #[test]
    fn no_options_make_it_panic_or_smuggle(
        keys in proptest::collection::btree_map(
            prop_oneof![
                Just("type"), Just("o"), Just("device"), Just("size"), Just("uid"), Just("gid"), Just("mode"),
                Just("fs"), Just("create"), Just("sparse"), Just("other"),
            ].prop_map(str::to_owned),
            prop_oneof![
                ".{0,30}",
                "(none|tmpfs|ext4|xfs|btrfs|nfs)",
                "((bind|ro|rw|size=1M|subvol=[a-z/,=\\\\\"]{0,9}|suid|remount|[a-z=]{0,8}),){0,4}[a-z]{0,5}",
                "/[a-z./]{0,20}",
            ],
            0..6,
        )
    ) {
        if let Ok(spec) = parse_options(&keys) {
            let data = match &spec { Spec::Device(device) => device.data.clone(), _ => Vec::new() };
            for word in data {
                let (key, value) = word.split_once('=').unwrap_or((&word, ""));
                prop_assert!(["discard", "nodiscard", "nouuid", "subvol", "compress"].contains(&key), "{}", word);
                prop_assert!(!value.contains([',', '\\', '"', ' ', '\n', '\0']), "{}", word);
            }
            // The same options make the same thing again, for a record is read by the same parser.
            prop_assert_eq!(parse_options(&keys).unwrap(), spec);
        }
    }
}
