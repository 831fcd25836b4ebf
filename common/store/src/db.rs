//! One database file: opening, making, migrating, setting aside.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Params, Row, Transaction, TransactionBehavior};

use crate::error::StoreError;
use crate::lock::{FileLock, Mode, WAIT};
use crate::schema::Schema;
use crate::store::Recovered;
use crate::time::unix_ms;

/// Pages that a connection keeps, 256 KiB: more than a transaction of one attachment reads. The 2 MB that are usual would stand
/// between what is kept of ten thousand records as they are read, and could not be given back when they are free.
const CACHE: &str = "PRAGMA cache_size=-256";

/// An open database of known schema.
pub(crate) struct Db {
    conn: Connection,
    path: PathBuf,
    /// Device and inode at opening: a file that was removed or replaced since is noticed by them.
    identity: Option<(u64, u64)>,
}

/// What opening had to do.
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) recovered: Option<Recovered>,
}

impl Db {
    /// Opens `path`, and makes it if it is not there. The common case, a file of the known version, takes no lock.
    pub(crate) fn open(path: &Path, schema: &Schema) -> Result<Opened, StoreError> {
        if let Some(db) = Self::open_ready(path, schema)? {
            return Ok(Opened { db, recovered: None });
        }
        Self::open_locked(path, schema)
    }

    /// Opens `path` for looking only; `None` where it is missing or empty.
    pub(crate) fn open_read_only(path: &Path, schema: &Schema) -> Result<Option<Self>, StoreError> {
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
            return Ok(None);
        }
        let Some(db) = Self::connect(path, schema, identity(path))? else { return Ok(None) };
        // Not opened read-only by SQLite: such a connection leaves the files of its log behind.
        db.batch("PRAGMA query_only=1")?;
        let (found, known) = (db.version()?, schema.known());
        match found.cmp(&known) {
            Ordering::Greater => Err(StoreError::Newer { path: path.to_owned(), found, known }),
            Ordering::Less => Err(StoreError::Older { path: path.to_owned(), found, known }),
            Ordering::Equal => Ok(Some(db)),
        }
    }

    /// The database, if it needs nothing. `None`: missing, of an older version, or damaged.
    fn open_ready(path: &Path, schema: &Schema) -> Result<Option<Self>, StoreError> {
        // Taken before the open: if the file is replaced in between, the identity is the old one and the next
        // transaction opens again.
        let identity = identity(path);
        if identity.is_none() {
            return Ok(None);
        }
        let opened = Self::connect(path, schema, identity).and_then(|db| match db {
            Some(db) => db.version().map(|found| Some((db, found))),
            None => Ok(None),
        });
        match opened {
            Ok(Some((db, found))) if found == schema.known() => Ok(Some(db)),
            Ok(Some((_, found))) if found > schema.known() => {
                Err(StoreError::Newer { path: path.to_owned(), found, known: schema.known() })
            }
            Ok(_) | Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Makes, migrates or replaces the file; one process at a time.
    fn open_locked(path: &Path, schema: &Schema) -> Result<Opened, StoreError> {
        let dir = path.parent().unwrap_or(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| StoreError::from_io("create the directory", dir, source))?;
        let _lock =
            FileLock::take(&path.with_extension("db.lock"), Mode::Exclusive, WAIT).map_err(lock_error)?;
        let mut recovered = None;
        // A second round only after the file was set aside.
        for _ in 0..2 {
            create(path)?;
            match Self::migrate(path, schema) {
                Ok(db) => return Ok(Opened { db, recovered }),
                Err(StoreError::Corrupt { why, .. }) => recovered = Some(set_aside(path, why)?),
                Err(err) => return Err(err),
            }
        }
        Err(StoreError::Corrupt { path: path.to_owned(), why: "a fresh file is damaged as well".to_owned() })
    }

    fn migrate(path: &Path, schema: &Schema) -> Result<Self, StoreError> {
        let Some(db) = Self::connect(path, schema, identity(path))? else {
            return Err(StoreError::from_io("open", path, io::ErrorKind::NotFound.into()));
        };
        let found = db.version()?;
        if found > schema.known() {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: schema.known() });
        }
        db.batch("PRAGMA journal_mode=WAL")?;
        let half = db.begin(TransactionBehavior::Immediate)?;
        for step in schema.steps.iter().skip(usize::try_from(found).unwrap_or(0)) {
            db.batch(step)?;
        }
        db.batch(&format!("PRAGMA user_version={}", schema.known()))?;
        half.commit()?;
        Ok(db)
    }

    /// A connection with berth's settings; `None` where there is no file.
    fn connect(
        path: &Path,
        schema: &Schema,
        identity: Option<(u64, u64)>,
    ) -> Result<Option<Self>, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = match Connection::open_with_flags(path, flags) {
            Ok(conn) => conn,
            Err(_) if !path.exists() => return Ok(None),
            Err(err) => return Err(StoreError::from_sqlite(path, "open", err)),
        };
        let db = Self { conn, path: path.to_owned(), identity };
        db.conn.busy_handler(Some(wait_for_lock)).map_err(|err| db.error("busy handler", err))?;
        if schema.keeps_log {
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            db.conn.set_db_config(keep, true).map_err(|err| db.error("keep the log", err))?;
        }
        db.batch(CACHE)?;
        db.batch(schema.pragmas)?;
        Ok(Some(db))
    }

    fn version(&self) -> Result<i64, StoreError> {
        let sql = "PRAGMA user_version";
        self.conn.query_row(sql, [], |row| row.get(0)).map_err(|err| self.error(sql, err))
    }

    /// Gives back the memory that is held for later.
    pub(crate) fn shrink(&self) -> Result<(), StoreError> {
        self.batch("PRAGMA shrink_memory")
    }

    fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.execute_batch(sql).map_err(|err| self.error(sql, err))
    }

    fn error(&self, sql: &str, err: rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(&self.path, sql, err)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the file that is open.
    pub(crate) fn is_current(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    /// Begins a transaction. Dropping it rolls it back.
    pub(crate) fn begin(&self, behavior: TransactionBehavior) -> Result<Half<'_>, StoreError> {
        let tx = Transaction::new_unchecked(&self.conn, behavior).map_err(|err| self.error("BEGIN", err))?;
        Ok(Half { tx, path: &self.path, damaged: Cell::new(false) })
    }
}

/// A transaction on one of the two databases.
pub(crate) struct Half<'s> {
    tx: Transaction<'s>,
    path: &'s Path,
    damaged: Cell<bool>,
}

impl Half<'_> {
    /// Runs a statement; the number of rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        self.tx
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|err| self.error(sql, err))
    }

    /// All rows.
    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.tx
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect())
            .map_err(|err| self.error(sql, err))
    }

    /// The first row, if there is one.
    pub(crate) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.tx
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.next().transpose())
            .map_err(|err| self.error(sql, err))
    }

    /// Rows in turn, until `each` breaks.
    pub(crate) fn each<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
        mut each: impl FnMut(T) -> std::ops::ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let run = || -> rusqlite::Result<()> {
            let mut statement = self.tx.prepare_cached(sql)?;
            for row in statement.query_map(params, read)? {
                if each(row?).is_break() {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(|err| self.error(sql, err))
    }

    pub(crate) fn last_id(&self) -> i64 {
        self.tx.last_insert_rowid()
    }

    pub(crate) fn error(&self, sql: &str, err: rusqlite::Error) -> StoreError {
        let err = StoreError::from_sqlite(self.path, sql, err);
        if let StoreError::Corrupt { .. } = err {
            self.damaged.set(true);
        }
        err
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.get()
    }

    pub(crate) fn commit(self) -> Result<(), StoreError> {
        let Self { tx, path, damaged: _ } = self;
        tx.commit().map_err(|err| StoreError::from_sqlite(path, "COMMIT", err))
    }
}

/// Waits between tries for a lock of SQLite: 50 µs doubling to 2 ms, 5 s in all. The built-in handler would sleep up to
/// 100 ms at a time, which costs more than berth's whole transactions.
fn wait_for_lock(tries: i32) -> bool {
    let micros = 50_u64.checked_shl(u32::try_from(tries).unwrap_or(u32::MAX)).unwrap_or(2000).clamp(50, 2000);
    std::thread::sleep(Duration::from_micros(micros));
    tries < 2500
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes an empty file that only its owner may read, unless there is one; SQLite gives the files beside it the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::from_io("create", path, source))
        }
        _ => Ok(()),
    }
}

/// Renames a damaged database and the files beside it to `<name>.corrupt-<unix time>`. They are kept for a person to
/// look at: records are never deleted.
pub(crate) fn set_aside(path: &Path, why: String) -> Result<Recovered, StoreError> {
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let stamp = unix_ms() / 1000;
    let free = (0..1000).map(|n| if n == 0 { String::new() } else { format!(".{n}") });
    let moved_to = free
        .map(|n| with(&format!(".corrupt-{stamp}{n}")))
        .find(|target| !target.exists())
        .ok_or_else(|| StoreError::from_io("set aside", path, io::ErrorKind::AlreadyExists.into()))?;
    // The write-ahead log first: a crash between the renames must not leave an old log beside a new database.
    for suffix in ["-wal", "-shm", ""] {
        let target = PathBuf::from(format!("{}{suffix}", moved_to.display()));
        match std::fs::rename(with(suffix), target) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::from_io("set aside", path, source));
            }
            _ => {}
        }
    }
    tracing::warn!(path = %path.display(), moved_to = %moved_to.display(), %why, "damaged records set aside");
    Ok(Recovered { path: path.to_owned(), moved_to, why })
}

/// Sets the file aside after a transaction found it damaged, unless another process did so first.
pub(crate) fn set_aside_if_current(db: &Db, why: &str) -> Result<Option<Recovered>, StoreError> {
    let lock = db.path().with_extension("db.lock");
    let _lock = FileLock::take(&lock, Mode::Exclusive, WAIT).map_err(lock_error)?;
    if db.is_current() { set_aside(db.path(), why.to_owned()).map(Some) } else { Ok(None) }
}

/// Keeps what a user can act on: a lock file that cannot be made fails for the same reasons as a database.
fn lock_error(err: crate::lock::LockError) -> StoreError {
    match err {
        crate::lock::LockError::Io { action, path, source } => StoreError::from_io(action, &path, source),
        held => StoreError::Lock(held),
    }
}
