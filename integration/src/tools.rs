//! Finding programs, and waiting.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::other_kernel::SLOWNESS;

/// Where the `berth` that was built beside this test is. `BERTH_BIN` overrules.
pub fn berth_binary() -> PathBuf {
    binary("berth", "BERTH_BIN")
}

/// Where the `berthd` that was built beside this test is. `BERTHD_BIN` overrules.
pub fn berthd_binary() -> PathBuf {
    binary("berthd", "BERTHD_BIN")
}

fn binary(name: &str, overruled: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(overruled) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    // A test is target/PROFILE/deps/NAME-HASH, a bench too; a program is target/PROFILE/NAME.
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no {name} beside {test:?}: build it with `cargo build -p {name}`, or set {overruled}")
    })
}

/// `limit` as it is where this runs: more where everything is slower ([`crate::on_other_kernel`]).
pub fn patience(limit: Duration) -> Duration {
    let slowness = std::env::var(SLOWNESS).ok().and_then(|text| text.parse().ok());
    limit * slowness.unwrap_or(1)
}

/// Waits until `check` is content, at most `limit`, and fails the test with the last reason if it never is. For what the
/// kernel does in its own time, such as the removal of a namespace's links; not for what a program should have done.
#[track_caller]
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let limit = patience(limit);
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match check() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() >= limit => panic!("not within {limit:?}: {reason}"),
            Err(_) => std::thread::park_timeout(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
