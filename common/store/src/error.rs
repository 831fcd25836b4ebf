//! What can go wrong with the records, each with the file and what a user can do.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// A failure of the records. The second line of a text is the hint.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was written by a newer berth. It is left untouched.
    #[error(
        "records `{path}` have schema version {found}, this berth knows up to {known}\n\
         use the newer berth, or move the file away to start afresh"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version this build knows.
        known: i64,
    },
    /// The file was written by an older berth, and is to be looked at only.
    #[error(
        "records `{path}` have schema version {found} and are not yet brought to {known}\n\
         any change does it, `berth gc` for one"
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version this build brings it to.
        known: i64,
    },
    /// The file was found damaged in the middle of a transaction, which was rolled back.
    #[error(
        "records `{path}` are damaged: {why}\nrun `berth gc`: the file is set aside, and the records are built again from the kernel"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite found.
        why: String,
    },
    /// The file system is full (space or inodes), or a file size limit was reached. Nothing was changed.
    #[error("no space left for records `{path}`\nfree space on that file system and run the call again")]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The file or its file system cannot be written. Nothing was changed.
    #[error("records `{path}` are read-only\nremount the file system for writing or move the directory")]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// This user may not use the file or its directory.
    #[error(
        "no permission to use records `{path}`\nrun as the owner of that directory, which usually is root"
    )]
    Permission {
        /// The database or its directory.
        path: PathBuf,
    },
    /// Another process kept the database locked for longer than five seconds.
    #[error(
        "records `{path}` are locked by another process for more than 5 s\nsee `fuser {path}` for who it is"
    )]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// A file operation around the database failed.
    #[error("failed to {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Anything else SQLite reports, or a stored value that does not parse.
    #[error("records `{path}`: the statement `{sql}` failed")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The statement.
        sql: String,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// A lock file around the creation of a database could not be taken.
    #[error(transparent)]
    Lock(#[from] crate::lock::LockError),
}

impl StoreError {
    /// Whether the same call may succeed later with nothing changed by hand (CNI code 11, "try again later").
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Corrupt { .. })
    }

    /// Sorts an error of SQLite on `path` by what a user can do about it.
    pub(crate) fn from_sqlite(path: &Path, sql: &str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let (failure, text) = match &source {
            rusqlite::Error::SqliteFailure(failure, text) => (failure, text),
            // The tables are STRICT and texts are ours: a value of another form was not written by berth.
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::Utf8Error(..) => {
                return Self::Corrupt { path, why: source.to_string() };
            }
            _ => return Self::Sqlite { path, sql: sql.to_owned(), source },
        };
        match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt { path, why: text.clone().unwrap_or_else(|| failure.to_string()) }
            }
            ErrorCode::DiskFull => Self::Full { path },
            ErrorCode::ReadOnly => Self::ReadOnly { path },
            ErrorCode::PermissionDenied => Self::Permission { path },
            // SQLite says only "unable to open", of the file or of those beside it: the operating system knows why.
            ErrorCode::CannotOpen => match OpenOptions::new().read(true).write(true).open(&path) {
                Err(err) => Self::from_io("open", &path, err),
                Ok(_) if is_full(&path) => Self::Full { path },
                Ok(_) => Self::Sqlite { path, sql: sql.to_owned(), source },
            },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy { path },
            // The shared memory beside a WAL database cannot grow: SQLite has no code of its own for "full" there.
            ErrorCode::SystemIoFailure if is_space_failure(failure.extended_code) && is_full(&path) => {
                Self::Full { path }
            }
            _ => Self::Sqlite { path, sql: sql.to_owned(), source },
        }
    }

    /// Sorts an error of the operating system in the same way.
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

fn is_space_failure(extended_code: i32) -> bool {
    matches!(
        extended_code,
        ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMMAP
            | ffi::SQLITE_IOERR_WRITE
    )
}

/// Whether the file system of `path` has no space or no inodes left.
fn is_full(path: &Path) -> bool {
    let dir = path.parent().unwrap_or(path);
    rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_bavail == 0 || (fs.f_files != 0 && fs.f_favail == 0))
}
