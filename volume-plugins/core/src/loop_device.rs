//! Loop devices: files seen as block devices. They belong to the machine, not to a namespace.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use loopdev::{LoopControl, LoopDevice};

use crate::Access;

/// `ENODEV`, the answer of a sysfs file whose device has gone.
const ENODEV: i32 = 19;

/// How often a free device is looked for: between finding and taking one, another process may take it.
const ATTEMPTS: u32 = 16;

/// `EBUSY`, the kernel's answer for a device that was taken first.
const EBUSY: i32 = 16;

/// `ENXIO`, the kernel's answer for a device that no file is attached to.
const ENXIO: i32 = 6;

/// Why a loop device was not attached, detached or listed.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The kernel has no loop devices, or they may not be used.
    #[error("cannot open the loop control device")]
    Control(#[source] io::Error),
    /// The image could not be attached.
    #[error("cannot attach `{}` to a loop device", image.display())]
    Attach {
        /// The image.
        image: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The device could not be detached.
    #[error("cannot detach loop device `{}`", device.display())]
    Detach {
        /// The device.
        device: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's list of loop devices could not be read.
    #[error("cannot list loop devices in `{}`", path.display())]
    List {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A loop device that a file is attached to; detached when this is dropped. A mounted device is detached by the kernel
/// after its last unmount.
#[derive(Debug)]
#[must_use = "the loop device is detached when this is dropped"]
pub struct AttachedLoop {
    device: Option<LoopDevice>,
    path: PathBuf,
}

impl AttachedLoop {
    /// The device, for instance `/dev/loop3`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the device attached and returns its path.
    pub fn keep(mut self) -> PathBuf {
        self.device = None;
        std::mem::take(&mut self.path)
    }

    /// Detaches the device and says whether that worked.
    pub fn detach(mut self) -> Result<(), LoopError> {
        match self.device.take() {
            Some(device) => detach(&device, &self.path),
            None => Ok(()),
        }
    }
}

impl Drop for AttachedLoop {
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            // Nobody is left to tell; `detach` is for callers that have to know.
            let _ = detach(&device, &self.path);
        }
    }
}

/// A loop device in use, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoopInfo {
    /// The device, for instance `/dev/loop3`.
    pub device: PathBuf,
    /// The file attached to it; ends in ` (deleted)` when that file has no name any more.
    pub backing_file: PathBuf,
}

/// Attaches `image` to a free loop device.
pub fn loop_attach(image: &Path, access: Access) -> Result<AttachedLoop, LoopError> {
    let file = fs::OpenOptions::new().read(true).write(access == Access::ReadWrite).open(image);
    let file = file.map_err(|source| LoopError::Attach { image: image.to_owned(), source })?;
    attach(&file, image, access, false)
}

/// Attaches an open file, whose path is only told, to a free loop device that is detached when nobody uses it any more:
/// when this process ends, unless something is mounted by then, and else after the last unmount.
pub(crate) fn loop_attach_file(file: &File, image: &Path, access: Access) -> Result<AttachedLoop, LoopError> {
    attach(file, image, access, true)
}

fn attach(file: &File, image: &Path, access: Access, autoclear: bool) -> Result<AttachedLoop, LoopError> {
    let control = LoopControl::open().map_err(LoopError::Control)?;
    let failed = |source| LoopError::Attach { image: image.to_owned(), source };
    let mut attempt = 0;
    loop {
        attempt += 1;
        match attach_once(&control, file, access, autoclear) {
            Err(error) if error.raw_os_error() == Some(EBUSY) && attempt < ATTEMPTS => (),
            other => return other.map_err(failed),
        }
    }
}

fn attach_once(
    control: &LoopControl,
    file: &File,
    access: Access,
    autoclear: bool,
) -> io::Result<AttachedLoop> {
    let device = control.next_free()?;
    let path = device.path().ok_or_else(|| io::Error::other("the loop device has no name"))?;
    if !autoclear {
        device.with().read_only(access == Access::ReadOnly).attach_fd(file.as_raw_fd())?;
        return Ok(AttachedLoop { device: Some(device), path });
    }
    // The kernel takes a detachment of a device that somebody else has open as a wish for its last close. Asking for that
    // by LOOP_SET_STATUS64 would stop the device's queue, which costs more than all the rest of a mount together.
    let user = LoopDevice::open(&path)?;
    // Read only by how the file was opened (drivers/block/loop.c).
    device.attach_fd(file.as_raw_fd())?;
    let attached = AttachedLoop { device: Some(device), path };
    user.detach()?;
    Ok(attached)
}

/// Detaches the loop device at `path`. One that is not attached is a success.
pub fn loop_detach(path: &Path) -> Result<(), LoopError> {
    let failed = |source| LoopError::Detach { device: path.to_owned(), source };
    detach(&LoopDevice::open(path).map_err(failed)?, path)
}

/// The loop devices that this very file is attached to, whatever names it had.
pub(crate) fn loops_of(file: &File, image: &Path) -> Result<Vec<PathBuf>, LoopError> {
    let failed = |source| LoopError::List { path: image.to_owned(), source };
    let own = file.metadata().map(|meta| (meta.dev(), meta.ino())).map_err(failed)?;
    let is_it =
        |info: &LoopInfo| fs::metadata(&info.backing_file).is_ok_and(|meta| (meta.dev(), meta.ino()) == own);
    Ok(attached_loops()?.into_iter().filter(is_it).map(|info| info.device).collect())
}

/// Makes a loop device as large as its file has become.
pub(crate) fn loop_grow(path: &Path) -> Result<(), LoopError> {
    let grown = LoopDevice::open(path).and_then(|device| device.set_capacity());
    grown.map_err(|source| LoopError::Attach { image: path.to_owned(), source })
}

fn detach(device: &LoopDevice, path: &Path) -> Result<(), LoopError> {
    match device.detach() {
        Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(()),
        other => other.map_err(|source| LoopError::Detach { device: path.to_owned(), source }),
    }
}

/// All loop devices of the machine that a file is attached to, by name.
pub fn attached_loops() -> Result<Vec<LoopInfo>, LoopError> {
    let dir = Path::new("/sys/block");
    let failed = |path: &Path, source| LoopError::List { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| failed(dir, source))? {
        let entry = entry.map_err(|source| failed(dir, source))?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        let file = entry.path().join("loop/backing_file");
        match fs::read_to_string(&file) {
            Ok(text) => found.push(LoopInfo {
                device: Path::new("/dev").join(&name),
                backing_file: PathBuf::from(text.strip_suffix('\n').unwrap_or(&text)),
            }),
            // Not attached, or detached since the directory was read.
            Err(error) if gone(&error) => (),
            Err(source) => return Err(failed(&file, source)),
        }
    }
    found.sort();
    Ok(found)
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(ENXIO | ENODEV))
}
