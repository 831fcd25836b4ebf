//! What is done with a volume's files: export and import beside `tar`, reading and writing beside the host's own directory.

use std::path::Path;
use std::time::{Duration, Instant};

use berth_integration::Host;
use berth_integration::bench::{Socket, Wanted, row};
use berth_integration::engine::berth;
use serde_json::json;

use crate::FEW;

/// What is exported: large files and many small ones.
const LARGE: u32 = 3;
const LARGE_MB: u32 = 96;
const SMALL: u32 = 2000;
const SMALL_KB: u32 = 16;

/// What is written and read in one go, MB.
const IO_MB: u32 = 256;

pub(crate) fn measure(host: &Host, plugin: &Socket<'_>) {
    plugin.post("/VolumeDriver.Create", &json!({"Name": "v"}));
    let data = Path::new("/var/lib/berth/volumes/v/_data");
    host.run(&format!(
        "cd {0} && for i in $(seq {LARGE}); do head -c {LARGE_MB}M /dev/urandom > large$i; done \
         && mkdir small && for i in $(seq {SMALL}); do head -c {SMALL_KB}k /dev/urandom > small/$i; done && sync -f .",
        data.display()
    ));
    let megabytes = f64::from(LARGE * LARGE_MB) + f64::from(SMALL * SMALL_KB) / 1024.0;
    archives(host, plugin, data, megabytes);
    plugin.post("/VolumeDriver.Remove", &json!({"Name": "v"}));
    input_and_output(host, plugin);
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// The middle one as megabytes in a second.
fn rate(megabytes: f64, mut times: Vec<Duration>) -> f64 {
    times.sort();
    megabytes / times[times.len() / 2].as_secs_f64()
}

/// Both write to the disk what they make, and wait for it: `tar` is followed by a sync.
fn archives(host: &Host, plugin: &Socket<'_>, data: &Path, megabytes: f64) {
    let dir = host.dir().join("berth-disk");
    let (ours, theirs, out) = (dir.join("ours.tar"), dir.join("theirs.tar"), dir.join("out"));
    let (mut export, mut pack, mut import, mut unpack) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=FEW {
        std::fs::create_dir(&out).unwrap();
        let export_it = || drop(berth(host, ["volume", "export", "v", "--file"]).arg(&ours).run());
        let pack_it = || {
            let (data, theirs) = (data.display(), theirs.display());
            host.run(&format!("tar --xattrs -C {data} -cf {theirs} . && sync {theirs}"));
        };
        let import_it = || drop(berth(host, ["volume", "import", "w"]).arg(&ours).run());
        let unpack_it = || {
            let (out, theirs) = (out.display(), theirs.display());
            host.run(&format!("tar --xattrs -C {out} -xpf {theirs} && sync -f {out}"));
        };
        let (one, two) = in_turn(host, round, &export_it, &pack_it);
        let (three, four) = in_turn(host, round, &import_it, &unpack_it);
        plugin.post("/VolumeDriver.Remove", &json!({"Name": "w"}));
        std::fs::remove_dir_all(&out).unwrap();
        for file in [&ours, &theirs] {
            std::fs::remove_file(file).unwrap();
        }
        if round > 0 {
            export.push(one);
            pack.push(two);
            import.push(three);
            unpack.push(four);
        }
    }
    let (tar, untar) = ("`tar -c` and sync", "`tar -x` and sync");
    let (export, pack) = (rate(megabytes, export), rate(megabytes, pack));
    row("`volume export`, with a checksum", "MB/s", export, Some((tar, pack)), Wanted::TimesAtLeast(0.9));
    let (import, unpack) = (rate(megabytes, import), rate(megabytes, unpack));
    row("`volume import`, checked", "MB/s", import, Some((untar, unpack)), Wanted::TimesAtLeast(0.9));
}

/// Times of both. Each begins with nothing of the other's still to be written, and they take turns in who begins.
fn in_turn(host: &Host, round: usize, ours: &dyn Fn(), theirs: &dyn Fn()) -> (Duration, Duration) {
    let settled = |work: &dyn Fn()| {
        host.run(&format!("sync -f {}", host.dir().join("berth-disk").display()));
        timed(work)
    };
    if round.is_multiple_of(2) {
        let ours = settled(ours);
        (ours, settled(theirs))
    } else {
        let theirs = settled(theirs);
        (settled(ours), theirs)
    }
}

/// New directories in each round, for where on the disk a directory's files lie decides more than who made it.
fn input_and_output(host: &Host, plugin: &Socket<'_>) {
    let (mut writes, mut reads) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=FEW {
        let name = format!("io{round}");
        plugin.post("/VolumeDriver.Create", &json!({"Name": name}));
        let volume = Path::new("/var/lib/berth/volumes").join(&name).join("_data");
        let own = host.dir().join("berth-disk/own").join(&name).join("_data");
        std::fs::create_dir_all(&own).unwrap();
        let mut both = [(0, &volume), (1, &own)];
        // Who comes second finds another disk than who comes first.
        if round % 2 == 1 {
            both.reverse();
        }
        for (index, dir) in both {
            let file = dir.join("io").display().to_string();
            let wrote = timed(|| {
                host.run(&format!("dd if=/dev/zero of={file} bs=1M count={IO_MB} conv=fsync status=none"));
            });
            let read = timed(|| {
                host.run(&format!("dd if={file} of=/dev/null bs=1M iflag=direct status=none"));
            });
            host.run(&format!("rm {file}"));
            if round > 0 {
                writes[index].push(wrote);
                reads[index].push(read);
            }
        }
        plugin.post("/VolumeDriver.Remove", &json!({"Name": name}));
    }
    for (work, [ours, theirs]) in [("writing in a directory volume", writes), ("reading there", reads)] {
        let megabytes = f64::from(IO_MB);
        let host_rate = rate(megabytes, theirs);
        row(
            work,
            "MB/s",
            rate(megabytes, ours),
            Some(("the host's own directory", host_rate)),
            Wanted::TimesAtLeast(0.95),
        );
    }
}
