//! Finding programs, and waiting.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the `berth` that was built beside this test is. `BERTH_BIN` overrules.
pub fn berth_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("BERTH_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    // A test is target/PROFILE/deps/NAME-HASH, a bench too; a program is target/PROFILE/NAME.
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("berth")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no berth beside {test:?}: build it with `cargo build -p berth`, or set BERTH_BIN")
    })
}

/// Waits until `check` is content, at most `limit`, and fails the test with the last reason if it never is. For what the
/// kernel does in its own time, such as the removal of a namespace's links; not for what a program should have done.
#[track_caller]
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
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
