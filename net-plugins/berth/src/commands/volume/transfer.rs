//! `volume clone`, `export`, `import`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::VolumeName;
use berth_volume_core::{Exported, Imported, Options, VolumeError, Volumes};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::progress::Progress;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

/// How long a directory is counted to know how far a copy is.
const PATIENCE: Duration = Duration::from_millis(200);

/// How much is read and written at once.
const BUFFER: usize = 1 << 20;

#[derive(Serialize)]
struct Transferred<'a> {
    volume: &'a VolumeName,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<&'a VolumeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl<'a> Transferred<'a> {
    fn of(volume: &'a VolumeName) -> Self {
        Self { volume, new: None, file: None, changed_files: None, checked: None, bytes: None }
    }
}

/// How many bytes a copy of a volume will be about, if that is soon known.
fn total(volumes: &mut Volumes, name: &VolumeName) -> Option<u64> {
    let usage = volumes.usage(name, PATIENCE).ok()?;
    usage.space.used.filter(|used| !usage.at_least && *used > 0)
}

/// `volume clone`
pub(super) fn clone(
    volumes: &mut Volumes,
    name: &VolumeName,
    new: &VolumeName,
    options: Option<&Options>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let doing = format!("clone volume {name} as {new}");
    let progress = Progress::begin("cloning", total(volumes, name));
    let cloned = volumes.clone_volume(name, new, options, &mut |bytes| progress.add(bytes));
    drop(progress);
    cloned.doing(&doing)?;
    if out.is_json() {
        out.json(&Transferred { new: Some(new), ..Transferred::of(name) })?;
    } else {
        out.line(format!("cloned volume {name} as {new}"))?;
    }
    Ok(Exit::Fine)
}

/// `volume export`
pub(super) fn export(
    volumes: &mut Volumes,
    name: &VolumeName,
    file: Option<&Path>,
    zstd: bool,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let doing = format!("export volume {name}");
    let total = total(volumes, name);
    let mut write = |to: &mut dyn Write| {
        let progress = Progress::begin("exporting", total);
        export_to(volumes, name, to, zstd, &progress)
    };
    let exported = match file {
        Some(path) => {
            let target = NewFile::begin(path).doing(&doing)?;
            let exported = write(&mut &target.file).doing(&doing)?;
            target.finish().doing(&doing)?;
            exported
        }
        None if io::stdout().is_terminal() => {
            return Err(Failure::plain(doing, "an archive is not for a terminal").with_hint(format!(
                "name a file: `berth volume export {name} --file {name}.tar`, or use a pipe"
            )));
        }
        None => {
            let stdout = io::stdout().as_fd_file().doing(&doing)?;
            write(&mut &stdout).doing(&doing)?
        }
    };
    let Exported { changed } = exported;
    if file.is_none() {
        // Standard output is the archive's.
        return Ok(if changed == 0 { Exit::Fine } else { Exit::Differs });
    }
    let shown = file.map(|path| path.display().to_string());
    if out.is_json() {
        out.json(&Transferred { file: shown, changed_files: Some(changed), ..Transferred::of(name) })?;
    } else {
        out.line(format!("exported volume {name} to {}", shown.unwrap_or_default()))?;
        if changed > 0 {
            let line = format!(
                "{changed} files changed while they were read: stop what writes to it and export again"
            );
            let line = out.coloured(Colour::Warn, &line);
            out.line(line)?;
        }
    }
    Ok(if changed == 0 { Exit::Fine } else { Exit::Differs })
}

fn export_to(
    volumes: &mut Volumes,
    name: &VolumeName,
    to: &mut dyn Write,
    zstd: bool,
    progress: &Progress,
) -> Result<Exported, VolumeError> {
    let written = |source| VolumeError::Io { action: "write", path: "the archive".into(), source };
    let mut report = |bytes| progress.add(bytes);
    if zstd {
        // 3 is the compressor's own default.
        let mut encoder = zstd::Encoder::new(to, 3).map_err(written)?;
        let exported = volumes.export(name, &mut encoder, &mut report)?;
        encoder.finish().and_then(|to| to.flush()).map_err(written)?;
        return Ok(exported);
    }
    let mut buffered = BufWriter::with_capacity(BUFFER, to);
    let exported = volumes.export(name, &mut buffered, &mut report)?;
    buffered.flush().map_err(written)?;
    Ok(exported)
}

/// `volume import`
pub(super) fn import(
    volumes: &mut Volumes,
    name: &VolumeName,
    file: Option<&Path>,
    options: Option<&Options>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let doing = format!("import volume {name}");
    let (mut from, total): (Box<dyn io::BufRead>, _) = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let opened = File::open(path).and_then(|file| {
                let size = file.metadata()?.len();
                Ok((file, size))
            });
            let (file, size) = opened
                .map_err(|source| VolumeError::Io { action: "open", path: path.to_owned(), source })
                .doing(&doing)?;
            (Box::new(BufReader::with_capacity(BUFFER, file)), Some(size))
        }
        None => (Box::new(BufReader::with_capacity(BUFFER, io::stdin())), None),
    };
    let progress = Progress::begin("importing", total);
    let imported = volumes.import(name, options, &mut *from, &mut |bytes| progress.add(bytes));
    drop(progress);
    let Imported { checked, bytes } = imported.doing(&doing)?;
    if out.is_json() {
        out.json(&Transferred { checked: Some(checked), bytes: Some(bytes), ..Transferred::of(name) })?;
        return Ok(Exit::Fine);
    }
    let how =
        if checked { "its checksum is right" } else { "it has no checksum of berth's, and was not checked" };
    out.line(format!("imported volume {name}; {how}"))?;
    Ok(Exit::Fine)
}

/// A file that has its name only when it is whole.
struct NewFile {
    file: File,
    path: PathBuf,
    /// The name meanwhile, on a file system that cannot do without.
    temporary: Option<PathBuf>,
}

impl NewFile {
    fn begin(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            let text = format!("`{}` exists; an archive is never written over something", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        // Data of a volume: for its owner's eyes, until they decide otherwise.
        match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Self { file: fd.into(), path: path.to_owned(), temporary: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let temporary = dir.join(format!(".{name}.{}", std::process::id()));
                let file = File::create_new(&temporary)?;
                Ok(Self { file, path: path.to_owned(), temporary: Some(temporary) })
            }
            Err(err) => Err(err.into()),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        self.file.sync_all()?;
        match self.temporary.take() {
            Some(temporary) => std::fs::rename(temporary, &self.path),
            None => {
                let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                Ok(rustix::fs::linkat(CWD, own, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?)
            }
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Standard output as a file of its own, past the buffer for lines.
trait AsFdFile {
    fn as_fd_file(&self) -> io::Result<File>;
}

impl AsFdFile for io::Stdout {
    fn as_fd_file(&self) -> io::Result<File> {
        use std::os::fd::AsFd as _;
        Ok(self.as_fd().try_clone_to_owned()?.into())
    }
}
