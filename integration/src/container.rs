//! A container, as far as networks see one: a pinned network namespace.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use berth_volume_core::{Access, bind};

use crate::{Host, NetView, Place};

/// A network namespace pinned in a host. Removed when dropped; what is then still in it is a leak, for the test should
/// have taken it away by DEL.
#[derive(Debug)]
pub struct Container<'h> {
    host: &'h Host,
    name: String,
    path: PathBuf,
    place: Place,
    fresh: NetView,
    removed: bool,
}

impl Deref for Container<'_> {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl<'h> Container<'h> {
    pub(crate) fn new(host: &'h Host, name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        let place = host.with_new_net(|| {
            fs::create_dir_all("/run/netns").unwrap();
            fs::File::create_new(&path).unwrap();
            bind(Path::new("/proc/thread-self/ns/net"), &path, Access::ReadWrite).unwrap().keep();
        });
        let fresh = NetView::of(&place);
        Self { host, name: name.to_owned(), path, place, fresh, removed: false }
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `CNI_NETNS`: where the namespace is pinned inside the host.
    pub fn netns(&self) -> &Path {
        &self.path
    }

    /// The host it is on.
    pub fn host(&self) -> &'h Host {
        self.host
    }

    /// Unpins the namespace and forgets it, with whatever is in it: what a runtime does when a container is gone. The kernel
    /// takes its links away soon after, unless a process or socket is still in it.
    pub fn remove(mut self) {
        self.unpin();
    }

    /// Unpins the namespace but keeps it open, so that what is in it stays: a sandbox whose path is gone.
    pub fn unpin(&mut self) {
        if !self.removed {
            self.removed = true;
            self.host.inside(|| {
                // Lazily, as engines do: somebody may have it open.
                nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
                fs::remove_file(&self.path).unwrap();
            });
        }
    }

    /// The namespace as it is now.
    pub fn view(&self) -> NetView {
        NetView::of(&self.place)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if !std::thread::panicking() {
            let left = self.fresh.difference(&self.view());
            // A loopback that was up once keeps 127.0.0.1 and its routes when it goes down: nobody takes them away.
            let kept = |line: &&str| !line.contains(" lo 127.0.0.1/8") && !line.contains("\"dev\":\"lo\"");
            let left: String = left.lines().filter(kept).map(|line| format!("{line}\n")).collect();
            if !left.is_empty() {
                self.host.leaked(format!("container {} was dropped with\n{left}", self.name));
            }
        }
        self.unpin();
    }
}
