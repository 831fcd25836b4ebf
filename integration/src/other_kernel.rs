//! A kernel of Debian's in an emulator, for what the machine's own kernel may lack: tests of the same test binary run on it.
//!
//! The emulator is QEMU's, with no help of the machine's processor, so it runs anywhere, ten to thirty times as slowly. The
//! guest sees the machine's files as they are, read-only, and what it writes is in its memory and gone with it. Kernel and
//! emulator are Debian's packages, unpacked once into the cache of the tests: a kernel that is installed would be booted by
//! the machine the next time.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::debian::{cached, run, try_run};

/// The package of the kernel, which depends on the newest.
const KERNEL: &str = "linux-image-amd64";

/// The package of the emulator.
const EMULATOR: &str = "qemu-system-x86";

/// What the guest needs before it has a root: in this order after what they depend on.
const FIRST_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Folders of modules that no test needs: most of the size.
const UNNEEDED: [&str; 6] =
    ["drivers/gpu", "drivers/media", "drivers/scsi", "drivers/infiniband", "drivers/staging", "sound"];

/// How often a download is tried, and how much longer to wait each time before the next.
const ATTEMPTS: u32 = 4;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(5);

/// Memory of the guest, MiB.
const MEMORY: u32 = 1024;

/// Processors of the guest; as many tests run at once.
const PROCESSORS: &str = "2";

/// What the kernel is told.
const TOLD: [&str; 12] = [
    "console=ttyS0",
    "panic=-1",
    "quiet",
    // Each look at an emulated clock would leave the guest; the processor's counter is read where it is asked for.
    "tsc=reliable",
    "clocksource=tsc",
    // Links and namespaces go one after the other, and each waits for all processors.
    "rcupdate.rcu_expedited=1",
    // What costs time and guards nothing here.
    "mitigations=off",
    "init_on_alloc=0",
    "apparmor=0",
    "audit=0",
    "nokaslr",
    "cryptomgr.notests=1",
];

/// Set in the guest: how many times as long as usual everything may take.
pub(crate) const SLOWNESS: &str = "BERTH_TEST_SLOWNESS";

/// What a run of tests on the other kernel came to.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The exit status of the test binary; none if it did not end in time, or the kernel did not.
    pub code: Option<i32>,
    /// What the guest printed, by line, and when, from the start on.
    pub printed: Vec<(Duration, String)>,
    /// How long it took.
    pub elapsed: Duration,
    /// How long it was given.
    pub limit: Duration,
}

impl Guest {
    /// The lines that the guest printed.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.printed.iter().map(|(_, line)| line.as_str())
    }

    /// How it ended; of one that did not, what it did last.
    pub fn verdict(&self) -> String {
        let Self { code, printed, elapsed, limit } = self;
        let seconds = elapsed.as_secs();
        match (code, printed.last()) {
            (Some(code), _) => format!("the tests on the other kernel ended with {code} after {seconds} s"),
            (None, None) => format!("the other kernel printed nothing in {seconds} s"),
            (None, Some((at, last))) if elapsed >= limit => format!(
                "the other kernel was too slow: it was not done in {seconds} s; {} s before that it printed last: {last}",
                elapsed.saturating_sub(*at).as_secs()
            ),
            (None, Some((_, last))) => {
                format!(
                    "the other kernel ended after {seconds} s, before its tests did; it printed last: {last}"
                )
            }
        }
    }
}

impl fmt::Display for Guest {
    /// Everything that it printed, each line with the seconds since the start, and how it ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in &self.printed {
            writeln!(f, "{:6.1} {line}", at.as_secs_f32())?;
        }
        f.write_str(&self.verdict())
    }
}

/// Runs this test binary's tests whose names contain `filter` on the other kernel, each in a process of its own.
///
/// # Panics
///
/// Kernel and emulator cannot be had.
pub fn on_other_kernel(filter: &str, limit: Duration) -> Guest {
    let parts = Parts::get();
    let script = tempfile::NamedTempFile::with_prefix("berth-guest-").unwrap();
    fs::write(script.path(), parts.script(filter)).unwrap();
    let started = Instant::now();
    let mut emulator = parts.emulator(script.path()).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = emulator.stdout.take().expect("it was asked for");
    let reader = std::thread::spawn(move || {
        let lines = io::BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        let text = |line: Vec<u8>| String::from_utf8_lossy(&line).replace('\r', "");
        lines.map(|line| (started.elapsed(), text(line))).collect::<Vec<_>>()
    });
    while emulator.try_wait().unwrap().is_none() {
        if started.elapsed() > limit {
            emulator.kill().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let elapsed = started.elapsed();
    let printed = reader.join().unwrap();
    let code = printed.iter().rev().find_map(|(_, line)| line.strip_prefix(ENDED)?.trim().parse().ok());
    Guest { code, printed, elapsed, limit }
}

/// What the guest prints before the exit status.
const ENDED: &str = "berth-test-ended: ";

/// Kernel and emulator in the cache.
struct Parts {
    dir: PathBuf,
    release: String,
}

impl Parts {
    fn get() -> Self {
        let dir = cached("kernel", [KERNEL, EMULATOR].into_iter().chain(FIRST_MODULES), unpack);
        let release = only_entry(&dir.join("lib/modules"));
        Self { dir, release }
    }

    fn emulator(&self, script: &Path) -> Command {
        let root = self.dir.join("emulator");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(root.join("usr/bin/qemu-system-x86_64"));
        command.env(
            "LD_LIBRARY_PATH",
            format!("{}:{}", libraries.display(), root.join("lib/x86_64-linux-gnu").display()),
        );
        for share in ["usr/share/seabios", "usr/share/qemu"] {
            command.arg("-L").arg(root.join(share));
        }
        let kernel = format!("vmlinuz-{}", self.release);
        command
            .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-monitor", "none"])
            .args(["-serial", "stdio", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", PROCESSORS])
            .args(["-m", &MEMORY.to_string()])
            .arg("-kernel")
            .arg(self.dir.join("boot").join(kernel))
            .arg("-initrd")
            .arg(self.dir.join("initrd"))
            .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"])
            .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
            .arg("-append")
            .arg(format!("{} berth.script={}", TOLD.join(" "), script.display()));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What the guest does once it has the machine's files.
    fn script(&self, filter: &str) -> String {
        let test = std::env::current_exe().unwrap();
        let (modules, release) = (self.dir.join("lib/modules").join(&self.release), &self.release);
        format!(
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t cgroup2 none /sys/fs/cgroup\n\
             mkdir -p /dev/pts /dev/shm /lib/modules\n\
             mount -t devpts devpts /dev/pts\n\
             mount -t tmpfs shm /dev/shm\n\
             mount -t tmpfs run /run\n\
             mount -t tmpfs tmp /tmp\n\
             mkdir -p /run/netns /run/lock\n\
             ln -s /proc/self/fd /dev/fd\n\
             ln -s fd/0 /dev/stdin\n\
             ln -s fd/1 /dev/stdout\n\
             ln -s fd/2 /dev/stderr\n\
             ln -s {modules} /lib/modules/{release}\n\
             busybox modprobe -a {needed}\n\
             echo > /proc/sys/kernel/modprobe\n\
             nft list ruleset\n\
             ip link set lo up\n\
             cd {folder}\n\
             one() {{\n\
             echo \"$1 begins\"\n\
             {SLOWNESS}=8 {test} --exact \"$1\" --nocapture < /dev/null > \"/tmp/$1\" 2>&1\n\
             code=$?\n\
             flock /tmp cat \"/tmp/$1\"\n\
             return $code\n\
             }}\n\
             export -f one\n\
             {test} {filter} --list | sed -n 's/: test$//p' | xargs -I NAME -P {PROCESSORS} bash -c 'one NAME'\n\
             echo \"{ENDED}$?\"\n\
             echo o > /proc/sysrq-trigger\n\
             read -r -t 30 < /dev/zero\n",
            modules = modules.display(),
            needed = needed_modules(&modules),
            folder = std::env::current_dir().unwrap().display(),
            test = test.display(),
        )
    }
}

/// What the guest loads before the tests, all at once: the kernel asks for each by itself as it is needed, and for those that there
/// are not again and again, and each time everything that is known of modules is read.
fn needed_modules(modules: &Path) -> String {
    // The first are what others ask for as they are loaded, or used.
    const MODULES: [&str; 19] = [
        "crc32c_generic",
        "sha512_generic",
        "hmac",
        "drbg",
        "ecb",
        "loop",
        "veth",
        "vxlan",
        "bridge",
        "xfrm_user",
        "esp4",
        "esp6",
        "gcm",
        "ctr",
        "ghash-generic",
        "seqiv",
        "echainiv",
        "cmac",
        "udp_diag",
    ];
    let known = fs::read_to_string(modules.join("modules.dep")).unwrap();
    let paths = known.lines().filter_map(|line| Some(Path::new(line.split_once(':')?.0)));
    let names =
        paths.filter(|path| path.starts_with("kernel/net")).filter_map(|path| path.file_stem()?.to_str());
    let rules = names
        .filter(|name| name.starts_with("nf_") || name.starts_with("nft_") || name.starts_with("nfnetlink"));
    MODULES.into_iter().chain(rules).collect::<Vec<_>>().join(" ")
}

/// Whether this is the guest.
pub fn is_other_kernel() -> bool {
    std::env::var_os(SLOWNESS).is_some()
}

/// Makes the parts below `work`; returns the folder that is kept.
fn unpack(work: &Path) -> PathBuf {
    let (downloads, kernel, kept) = (work.join("downloads"), work.join("kernel"), work.join("kept"));
    for folder in [&downloads, &kernel, &kept] {
        fs::create_dir_all(folder).unwrap();
    }
    let depends = run(Command::new("apt-cache").args(["depends", "--important", KERNEL]));
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let newest = newest.unwrap_or_else(|| panic!("apt-get knows no {KERNEL}: run `apt-get update` first"));
    download(newest, Command::new("apt-get").args(["download", "-qq", newest]).current_dir(&downloads));
    extract_all(&downloads, &kernel);
    fs::rename(kernel.join("boot"), kept.join("boot")).unwrap();
    let release = only_entry(&kernel.join("lib/modules"));
    for folder in UNNEEDED {
        let _ = fs::remove_dir_all(kernel.join("lib/modules").join(&release).join("kernel").join(folder));
    }
    run(Command::new("busybox").arg("depmod").arg("-b").arg(&kernel).arg(&release));
    fs::rename(kernel.join("lib"), kept.join("lib")).unwrap();
    first_files(&kept, &kept.join("lib/modules").join(&release), &work.join("first"));
    emulator(&work.join("emulator-packages"), &kept.join("emulator"));
    kept
}

/// The emulator with everything that it needs and that is not installed here.
fn emulator(packages: &Path, root: &Path) {
    fs::create_dir_all(packages.join("partial")).unwrap();
    fs::create_dir_all(root).unwrap();
    let archives = format!("Dir::Cache::archives={}", packages.display());
    let mut fetch = Command::new("apt-get");
    fetch.args(["install", "-qq", "-y", "--download-only", "--reinstall", "--no-install-recommends"]);
    download(EMULATOR, fetch.args(["-o", &archives, EMULATOR]).env("DEBIAN_FRONTEND", "noninteractive"));
    extract_all(packages, root);
}

/// Has apt fetch a package, again where the mirror or the way to it fails.
fn download(package: &str, command: &mut Command) {
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        std::thread::sleep(attempt * BETWEEN_ATTEMPTS);
        match try_run(command) {
            Ok(_) => return,
            Err(reason) => why = reason,
        }
    }
    panic!(
        "the other kernel cannot be had: Debian's package {package} was not downloaded, {ATTEMPTS} times\n\
         look whether `apt-get update` reaches the mirror\n{why}"
    );
}

fn extract_all(from: &Path, to: &Path) {
    let archives = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
    for archive in archives.filter(|path| path.extension() == Some(OsStr::new("deb"))) {
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(to));
    }
}

fn only_entry(dir: &Path) -> String {
    let entry = fs::read_dir(dir).unwrap().next().expect("a kernel has modules").unwrap();
    entry.file_name().into_string().expect("a plain name")
}

/// What the kernel begins with: a shell, the modules to reach the machine's files, and what it does with them.
fn first_files(kept: &Path, modules: &Path, work: &Path) {
    for folder in ["bin", "modules", "proc", "sys", "dev", "machine", "written", "root"] {
        fs::create_dir_all(work.join(folder)).unwrap();
    }
    fs::copy("/usr/bin/busybox", work.join("bin/busybox")).unwrap();
    let known = fs::read_to_string(modules.join("modules.dep")).unwrap();
    let mut order: Vec<String> = Vec::new();
    for name in FIRST_MODULES {
        let ending = format!("/{name}.ko");
        let lines = known.lines().filter_map(|line| line.split_once(':'));
        let (module, needs) = lines.into_iter().find(|(path, _)| path.ends_with(&ending)).unwrap();
        for path in needs.split_whitespace().rev().chain([module]) {
            if !order.iter().any(|other| other == path) {
                order.push(path.to_owned());
            }
        }
    }
    let mut loads = String::new();
    for (number, path) in order.iter().enumerate() {
        fs::copy(modules.join(path), work.join(format!("modules/{number}.ko"))).unwrap();
        loads += &format!("$b insmod /modules/{number}.ko\n");
    }
    let init = format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         $b mount -t proc proc /proc\n\
         $b mount -t sysfs sys /sys\n\
         $b mount -t devtmpfs dev /dev\n\
         {loads}\
         $b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /machine\n\
         $b mount -t tmpfs written /written\n\
         $b mkdir /written/upper /written/work\n\
         $b mount -t overlay -o lowerdir=/machine,upperdir=/written/upper,workdir=/written/work root /root\n\
         $b mount --move /dev /root/dev\n\
         script=$($b sed 's/.*berth.script=\\([^ ]*\\).*/\\1/' /proc/cmdline)\n\
         $b umount /sys /proc\n\
         exec $b switch_root /root /bin/bash $script\n"
    );
    fs::write(work.join("init"), init).unwrap();
    let pack = format!(
        "cd {} && chmod 755 init && busybox find . | busybox cpio -o -H newc 2>/dev/null > {}",
        work.display(),
        kept.join("initrd").display()
    );
    run(Command::new("busybox").args(["sh", "-c", &pack]));
}
