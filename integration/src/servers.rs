//! Which DNS servers a host knows.

use std::fs;
use std::path::PathBuf;

use crate::Host;

/// Another `/etc/resolv.conf` for a host, until it is dropped.
pub struct Servers<'h> {
    host: &'h Host,
    file: PathBuf,
}

impl<'h> Servers<'h> {
    /// With `text` in it.
    pub fn new(host: &'h Host, text: &str) -> Self {
        let file = host.dir().join("resolv.conf");
        fs::write(&file, text).unwrap();
        // Not the system's own, which keeps notes.
        host.run(&format!("busybox mount -o bind {} /etc/resolv.conf", file.display()));
        Self { host, file }
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        self.host.run("busybox umount -l /etc/resolv.conf");
        let _ = fs::remove_file(&self.file);
    }
}
