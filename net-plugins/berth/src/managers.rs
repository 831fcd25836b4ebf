//! Files that keep other programs' network managers off berth's links.
//!
//! Each goes into a directory that its manager reads. A file of the same name with another text is an administrator's, and
//! stays: `install` says so, and `uninstall` does not take it.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where each goes, and what it says.
const FILES: [(&str, &str); 3] = [
    (
        "/etc/NetworkManager/conf.d/90-berth.conf",
        include_str!("../../../packaging/network/NetworkManager/90-berth.conf"),
    ),
    (
        "/etc/systemd/network/10-berth.network",
        include_str!("../../../packaging/network/systemd/10-berth.network"),
    ),
    ("/etc/systemd/network/10-berth.link", include_str!("../../../packaging/network/systemd/10-berth.link")),
];

/// A file that could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} `{}`", path.display())]
pub(crate) struct ManagerFileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileAction {
    /// It is there and says this.
    Keep,
    /// It is written.
    Write,
    /// It is removed.
    Remove,
    /// It is there and says something else.
    Refuse,
}

/// A file and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ManagerFile {
    pub(crate) file: PathBuf,
    pub(crate) action: FileAction,
}

/// Puts the files in place below `root`, or says what that would come to.
pub(crate) fn install(root: &Path, dry_run: bool) -> Result<Vec<ManagerFile>, ManagerFileError> {
    let entry = |(place, text): (&str, &str)| {
        let file = below(root, place);
        let action = match found(&file)? {
            None => FileAction::Write,
            Some(had) if had == text => FileAction::Keep,
            Some(_) => FileAction::Refuse,
        };
        if action == FileAction::Write && !dry_run {
            write(&file, text)?;
        }
        Ok(ManagerFile { file, action })
    };
    FILES.into_iter().map(entry).collect()
}

/// Removes the files that say what berth's say, or says which that would be.
pub(crate) fn uninstall(root: &Path, dry_run: bool) -> Result<Vec<ManagerFile>, ManagerFileError> {
    let mut entries = Vec::new();
    for (place, text) in FILES {
        let file = below(root, place);
        match found(&file)? {
            Some(had) if had == text => {
                if !dry_run {
                    fs::remove_file(&file).map_err(|err| failed("remove", &file, err))?;
                }
                entries.push(ManagerFile { file, action: FileAction::Remove });
            }
            _ => (),
        }
    }
    Ok(entries)
}

fn below(root: &Path, place: &str) -> PathBuf {
    root.join(place.trim_start_matches('/'))
}

fn found(file: &Path) -> Result<Option<String>, ManagerFileError> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(failed("read", file, err)),
    }
}

/// By one rename: a manager that reads its directory meanwhile finds the whole file or none.
fn write(file: &Path, text: &str) -> Result<(), ManagerFileError> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|err| failed("make the directory of", file, err))?;
    // Names that begin with a dot are passed over by both managers.
    let temporary = dir.join(format!(".berth-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let written =
        options.open(&temporary).and_then(|mut open| io::Write::write_all(&mut open, text.as_bytes()));
    written.and_then(|()| fs::rename(&temporary, file)).map_err(|err| {
        // What failed is of interest, and not what is left of it.
        let _ = fs::remove_file(&temporary);
        failed("write", file, err)
    })
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ManagerFileError {
    ManagerFileError { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(entries: &[ManagerFile]) -> Vec<FileAction> {
        entries.iter().map(|entry| entry.action).collect()
    }

    #[test]
    fn files_are_put_in_place_kept_and_taken_away() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(actions(&install(root.path(), true).unwrap()), [FileAction::Write; 3]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing was done");
        assert_eq!(actions(&install(root.path(), false).unwrap()), [FileAction::Write; 3]);
        assert_eq!(actions(&install(root.path(), false).unwrap()), [FileAction::Keep; 3]);
        let conf = root.path().join("etc/NetworkManager/conf.d/90-berth.conf");
        assert!(fs::read_to_string(&conf).unwrap().contains("interface-name:bvx*"));
        assert_eq!(actions(&uninstall(root.path(), false).unwrap()), [FileAction::Remove; 3]);
        assert!(!conf.exists());
        assert_eq!(uninstall(root.path(), false).unwrap(), []);
    }

    #[test]
    fn a_file_that_somebody_changed_stays() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), false).unwrap();
        let link = root.path().join("etc/systemd/network/10-berth.link");
        fs::write(&link, "[Match]\nOriginalName=mine\n").unwrap();
        let again = install(root.path(), false).unwrap();
        assert_eq!(actions(&again), [FileAction::Keep, FileAction::Keep, FileAction::Refuse]);
        assert_eq!(actions(&uninstall(root.path(), false).unwrap()), [FileAction::Remove; 2]);
        assert!(link.exists());
    }
}
