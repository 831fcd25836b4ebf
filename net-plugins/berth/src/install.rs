//! Plugins' names in a directory where an engine looks for them: links to this program.
//!
//! A file that is not berth's is never lost: it stays, or with `--force` it is kept beside and put back by
//! `uninstall`. Each name changes by one rename, so an engine always finds the old plugin or the new one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What the program's own file is called, by which links to an earlier place of it are known.
const PROGRAM: &str = "berth";

/// Which names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// berth's own.
    Own,
    /// The reference plugins' too.
    All,
}

impl Names {
    fn list(self) -> impl Iterator<Item = &'static str> {
        let own = berth_cni::plugins::ALL.iter().map(|plugin| plugin.name);
        let reference = berth_cni::plugins::ALL.iter().filter_map(|plugin| plugin.reference);
        own.chain(reference.filter(move |_| self == Self::All))
    }
}

/// How a name leads to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// By its path.
    Symbolic,
    /// By its inode.
    Hard,
}

/// The program that names lead to.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    identity: (u64, u64),
    kind: LinkKind,
}

impl Source {
    /// `path` is absolute and no link.
    pub(crate) fn new(path: PathBuf, kind: LinkKind) -> Result<Self, InstallError> {
        let metadata = fs::metadata(&path).map_err(|source| fail("look at", &path, source))?;
        Ok(Self { identity: (metadata.dev(), metadata.ino()), path, kind })
    }

    /// What a symbolic link in `dir` says: only the file's name where the program is in the same directory, so that
    /// the directory may be mounted or moved.
    fn target_from(&self, dir: &Path) -> PathBuf {
        let beside = fs::canonicalize(dir).is_ok_and(|dir| self.path.parent() == Some(&dir));
        match self.path.file_name() {
            Some(name) if beside => PathBuf::from(name),
            _ => self.path.clone(),
        }
    }
}

/// Why nothing, or not everything, was installed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} `{}`", path.display())]
pub(crate) struct InstallError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> InstallError {
    InstallError { action, path: path.to_owned(), source }
}

/// One name and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) action: Action,
}

/// What happens to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(crate) enum Action {
    /// It leads here already.
    Keep,
    /// It is made.
    Link,
    /// It leads to another place of berth, and will lead here.
    Relink {
        /// That place.
        was: PathBuf,
    },
    /// It takes the place of a file that is kept.
    Replace {
        /// The name it is kept under.
        backup: String,
    },
    /// Something that is not berth's stays.
    Refuse {
        /// What it is.
        what: &'static str,
    },
}

/// What is found under a name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// This program, by whichever kind of link.
    Ours,
    /// A link to a file called `berth` somewhere else, or nowhere.
    Elsewhere(PathBuf),
    Foreign(&'static str),
}

fn look(path: &Path, source: &Source) -> Result<Found, InstallError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(err) => return Err(fail("look at", path, err)),
    };
    let same = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == source.identity;
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(|err| fail("read the link", path, err))?;
        if fs::metadata(path).is_ok_and(|metadata| same(&metadata)) {
            return Ok(Found::Ours);
        }
        let ours = target.file_name().is_some_and(|name| name == PROGRAM);
        return Ok(if ours { Found::Elsewhere(target) } else { Found::Foreign("a link to something else") });
    }
    Ok(match metadata {
        metadata if metadata.is_dir() => Found::Foreign("a directory"),
        metadata if same(&metadata) => Found::Ours,
        metadata if metadata.is_file() => Found::Foreign("a file"),
        _ => Found::Foreign("no file"),
    })
}

fn backup_of(name: &str) -> String {
    format!("{name}.before-berth")
}

/// Decides; changes nothing.
pub(crate) fn plan(
    dir: &Path,
    names: Names,
    source: &Source,
    force: bool,
) -> Result<Vec<Entry>, InstallError> {
    let entry = |name: &'static str| {
        let action = match look(&dir.join(name), source)? {
            Found::Nothing => Action::Link,
            Found::Ours => Action::Keep,
            Found::Elsewhere(was) => Action::Relink { was },
            // A directory is somebody's arrangement, not a plugin.
            Found::Foreign(what) if !force || what == "a directory" => Action::Refuse { what },
            Found::Foreign(_) => Action::Replace { backup: backup_of(name) },
        };
        Ok(Entry { name, action })
    };
    names.list().map(entry).collect()
}

/// Does what was decided.
pub(crate) fn apply(dir: &Path, source: &Source, entries: &[Entry]) -> Result<(), InstallError> {
    fs::create_dir_all(dir).map_err(|err| fail("make the directory", dir, err))?;
    for Entry { name, action } in entries {
        let path = dir.join(name);
        match action {
            Action::Keep | Action::Refuse { .. } => continue,
            Action::Link | Action::Relink { .. } => (),
            Action::Replace { backup } => keep(&path, &dir.join(backup))?,
        }
        put(dir, name, source)?;
    }
    Ok(())
}

/// Gives the file at `path` the second name `backup`; a file kept there before is older and goes.
fn keep(path: &Path, backup: &Path) -> Result<(), InstallError> {
    remove_if_there(backup)?;
    match fs::hard_link(path, backup) {
        Ok(()) => Ok(()),
        // A file system without hard links: the name is free for a moment.
        Err(_) => fs::rename(path, backup).map_err(|err| fail("keep", path, err)),
    }
}

fn put(dir: &Path, name: &str, source: &Source) -> Result<(), InstallError> {
    let path = dir.join(name);
    let temporary = dir.join(temporary_name(name));
    remove_if_there(&temporary)?;
    let made = match source.kind {
        LinkKind::Symbolic => symlink(source.target_from(dir), &temporary),
        LinkKind::Hard => fs::hard_link(&source.path, &temporary),
    };
    made.map_err(|err| fail("make the link", &path, err))?;
    fs::rename(&temporary, &path).map_err(|err| {
        // The link is of no use, and the reason of interest is why it could not take its name.
        let _ = fs::remove_file(&temporary);
        fail("put in place", &path, err)
    })
}

fn temporary_name(name: &str) -> OsString {
    format!(".{name}.berth-{}", std::process::id()).into()
}

fn remove_if_there(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(fail("remove", path, err)),
        _ => Ok(()),
    }
}

/// A name that is taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Taking {
    pub(crate) name: &'static str,
    /// What takes its place again.
    pub(crate) backup: Option<String>,
}

/// Decides what `uninstall` takes out; changes nothing.
pub(crate) fn plan_removal(dir: &Path, source: &Source) -> Result<Vec<Taking>, InstallError> {
    let mut entries = Vec::new();
    for name in Names::All.list() {
        match look(&dir.join(name), source)? {
            Found::Nothing | Found::Foreign(_) => (),
            Found::Ours | Found::Elsewhere(_) => {
                let backup =
                    Some(backup_of(name)).filter(|backup| dir.join(backup).symlink_metadata().is_ok());
                entries.push(Taking { name, backup });
            }
        }
    }
    Ok(entries)
}

/// Takes them out.
pub(crate) fn take(dir: &Path, entries: &[Taking]) -> Result<(), InstallError> {
    for Taking { name, backup } in entries {
        let path = dir.join(name);
        match backup {
            Some(backup) => {
                fs::rename(dir.join(backup), &path).map_err(|err| fail("put back", &path, err))?
            }
            None => remove_if_there(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Place {
        root: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for dir in ["bin", "cni"] {
                fs::create_dir(root.path().join(dir)).unwrap();
            }
            fs::write(root.path().join("bin/berth"), "program").unwrap();
            Self { root }
        }

        fn cni(&self) -> PathBuf {
            self.root.path().join("cni")
        }

        fn source(&self, kind: LinkKind) -> Source {
            Source::new(fs::canonicalize(self.root.path().join("bin/berth")).unwrap(), kind).unwrap()
        }

        fn install(&self, names: Names, force: bool) -> Vec<Entry> {
            let source = self.source(LinkKind::Symbolic);
            let entries = plan(&self.cni(), names, &source, force).unwrap();
            apply(&self.cni(), &source, &entries).unwrap();
            entries
        }

        fn uninstall(&self) -> Vec<Taking> {
            let entries = plan_removal(&self.cni(), &self.source(LinkKind::Symbolic)).unwrap();
            take(&self.cni(), &entries).unwrap();
            entries
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.cni()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn action(entries: &[Entry], name: &str) -> Action {
        entries.iter().find(|entry| entry.name == name).unwrap().action.clone()
    }

    #[test]
    fn own_names_lead_to_the_program_and_reference_names_only_when_asked() {
        let place = Place::new();
        place.install(Names::Own, false);
        assert_eq!(place.names(), ["rbridge", "rdns", "rhost", "ripam", "rnone", "roverlay", "rportmap"]);
        place.install(Names::All, false);
        let all = [
            "bridge",
            "dnsname",
            "host-local",
            "loopback",
            "portmap",
            "rbridge",
            "rdns",
            "rhost",
            "ripam",
            "rnone",
            "roverlay",
            "rportmap",
        ];
        assert_eq!(place.names(), all);
        assert_eq!(fs::read_to_string(place.cni().join("bridge")).unwrap(), "program");
    }

    #[test]
    fn installing_twice_changes_nothing() {
        let place = Place::new();
        place.install(Names::All, false);
        let before = fs::symlink_metadata(place.cni().join("rbridge")).unwrap().ino();
        assert!(place.install(Names::All, false).iter().all(|entry| entry.action == Action::Keep));
        assert_eq!(fs::symlink_metadata(place.cni().join("rbridge")).unwrap().ino(), before);
    }

    #[test]
    fn a_foreign_file_stays_and_the_others_are_installed() {
        let place = Place::new();
        fs::write(place.cni().join("bridge"), "reference").unwrap();
        symlink("/elsewhere/host-local", place.cni().join("host-local")).unwrap();
        let entries = place.install(Names::All, false);
        assert_eq!(action(&entries, "bridge"), Action::Refuse { what: "a file" });
        assert_eq!(action(&entries, "host-local"), Action::Refuse { what: "a link to something else" });
        assert_eq!(action(&entries, "rbridge"), Action::Link);
        assert_eq!(fs::read_to_string(place.cni().join("bridge")).unwrap(), "reference");
    }

    #[test]
    fn force_keeps_what_it_replaces_and_uninstall_puts_it_back() {
        let place = Place::new();
        let reference = place.cni().join("bridge");
        fs::write(&reference, "reference").unwrap();
        fs::set_permissions(&reference, fs::Permissions::from_mode(0o751)).unwrap();
        symlink("/elsewhere/portmap", place.cni().join("portmap")).unwrap();
        let entries = place.install(Names::All, true);
        assert_eq!(action(&entries, "bridge"), Action::Replace { backup: "bridge.before-berth".to_owned() });
        assert_eq!(fs::read_to_string(&reference).unwrap(), "program");
        // A second installation does not take its own link for the foreign file.
        assert!(place.install(Names::All, true).iter().all(|entry| entry.action == Action::Keep));
        place.uninstall();
        assert_eq!(place.names(), ["bridge", "portmap"]);
        assert_eq!(fs::read_to_string(&reference).unwrap(), "reference");
        assert_eq!(fs::metadata(&reference).unwrap().permissions().mode() & 0o777, 0o751);
        assert_eq!(fs::read_link(place.cni().join("portmap")).unwrap(), Path::new("/elsewhere/portmap"));
    }

    #[test]
    fn a_directory_stays_even_with_force() {
        let place = Place::new();
        fs::create_dir(place.cni().join("bridge")).unwrap();
        assert_eq!(
            action(&place.install(Names::All, true), "bridge"),
            Action::Refuse { what: "a directory" }
        );
    }

    #[test]
    fn a_link_to_an_earlier_place_of_the_program_is_moved_without_force() {
        let place = Place::new();
        symlink("/opt/old/berth", place.cni().join("rbridge")).unwrap();
        let entries = place.install(Names::Own, false);
        assert_eq!(action(&entries, "rbridge"), Action::Relink { was: "/opt/old/berth".into() });
        assert_eq!(fs::read_to_string(place.cni().join("rbridge")).unwrap(), "program");
    }

    #[test]
    fn hard_links_are_known_again() {
        let place = Place::new();
        let source = place.source(LinkKind::Hard);
        for expected in [Action::Link, Action::Keep] {
            let entries = plan(&place.cni(), Names::Own, &source, false).unwrap();
            assert_eq!(action(&entries, "rbridge"), expected);
            apply(&place.cni(), &source, &entries).unwrap();
        }
        assert!(!fs::symlink_metadata(place.cni().join("rbridge")).unwrap().is_symlink());
        assert_eq!(place.uninstall().len(), 7);
        assert!(place.names().is_empty());
    }

    #[test]
    fn beside_the_program_links_say_only_its_name() {
        let place = Place::new();
        let bin = place.root.path().join("bin");
        let source = place.source(LinkKind::Symbolic);
        apply(&bin, &source, &plan(&bin, Names::Own, &source, false).unwrap()).unwrap();
        assert_eq!(fs::read_link(bin.join("rbridge")).unwrap(), Path::new("berth"));
    }

    #[test]
    fn a_missing_directory_is_made_and_uninstalling_from_one_is_nothing() {
        let place = Place::new();
        fs::remove_dir(place.cni()).unwrap();
        assert!(plan_removal(&place.cni(), &place.source(LinkKind::Symbolic)).unwrap().is_empty());
        place.install(Names::Own, false);
        assert_eq!(place.names().len(), 7);
    }

    #[test]
    fn uninstalling_leaves_foreign_files() {
        let place = Place::new();
        fs::write(place.cni().join("bridge"), "reference").unwrap();
        place.install(Names::Own, false);
        place.uninstall();
        assert_eq!(place.names(), ["bridge"]);
    }
}
