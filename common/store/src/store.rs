//! The store and its transactions.

use std::cell::{OnceCell, RefCell};
use std::ops::Deref;
use std::path::PathBuf;

use berth_types::BootId;
use rusqlite::TransactionBehavior;

use crate::db::{Db, Half, Opened, set_aside_if_current};
use crate::{Dirs, StoreError, schema};

/// A damaged file that was set aside; a fresh one is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The database.
    pub path: PathBuf,
    /// Where the damaged file is now.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// The records of one host. Cheap to open: one file, one query.
pub struct Store {
    dirs: Dirs,
    boot: BootId,
    run: Db,
    state: OnceCell<Db>,
    unsettled: bool,
    read_only: bool,
    recovered: RefCell<Vec<Recovered>>,
}

impl Store {
    /// Opens `run.db`, making directory (mode 0700) and file (0600) if they are missing, and drops what another boot
    /// left in it. `state.db` is opened when a transaction first needs it.
    pub fn open(dirs: &Dirs, boot: BootId) -> Result<Self, StoreError> {
        let Opened { db, recovered } = Db::open(&dirs.run_db(), &schema::RUN)?;
        let mut store = Self {
            dirs: dirs.clone(),
            boot,
            run: db,
            state: OnceCell::new(),
            unsettled: false,
            read_only: false,
            recovered: RefCell::new(recovered.into_iter().collect()),
        };
        match store.enter_boot() {
            // The header was whole and a page behind it is not: one more try with a fresh file.
            Err(StoreError::Corrupt { why, .. }) => {
                store.recovered.get_mut().extend(set_aside_if_current(&store.run, &why)?);
                store.refresh()?;
            }
            other => other?,
        }
        Ok(store)
    }

    /// Opens what is there and changes nothing: no file is made, migrated, set aside or cleared of what another boot left
    /// in it. `None` where there is no `run.db`.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`]; a damaged file and one of an older version are errors too.
    pub fn open_read_only(dirs: &Dirs, boot: BootId) -> Result<Option<Self>, StoreError> {
        let Some(run) = Db::open_read_only(&dirs.run_db(), &schema::RUN)? else { return Ok(None) };
        Ok(Some(Self {
            dirs: dirs.clone(),
            boot,
            run,
            state: OnceCell::new(),
            unsettled: false,
            read_only: true,
            recovered: RefCell::default(),
        }))
    }

    /// The boot this store was opened in.
    pub fn boot(&self) -> &BootId {
        &self.boot
    }

    /// The directories this store was opened in.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Whether nobody has looked yet for what the kernel holds and `run.db` does not: it is the first use in this boot, or
    /// the file was wiped or damaged. The caller looks for berth's tags in the kernel, and then says [`Tx::settle`].
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Says that what [`Store::is_unsettled`] asked for was done, by this process or another.
    pub fn settled(&mut self) {
        self.unsettled = false;
    }

    /// The damaged files that were set aside since this store was opened.
    pub fn recovered(&self) -> Vec<Recovered> {
        self.recovered.borrow().clone()
    }

    /// Runs `f` on one consistent view of the records. It waits for no writer.
    pub fn read<T, E: From<StoreError>>(
        &mut self,
        f: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.refresh()?;
        let (done, damaged) = {
            let tx = ReadTx::begin(self, TransactionBehavior::Deferred)?;
            let done = f(&tx);
            (done, tx.damaged())
        };
        self.set_aside(damaged)?;
        done
    }

    /// Runs `f` as the only writer, commits if it is `Ok` and rolls everything back if it is not, or panics.
    ///
    /// Where both databases were written, the durable one is committed first.
    pub fn write<T, E: From<StoreError>>(&mut self, f: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.refresh()?;
        let (done, damaged) = {
            let tx = Tx(ReadTx::begin(self, TransactionBehavior::Immediate)?);
            let done = f(&tx);
            let damaged = tx.damaged();
            let done = match done {
                Ok(value) => tx.0.commit().map(|()| value).map_err(E::from),
                Err(err) => Err(err),
            };
            (done, damaged)
        };
        self.set_aside(damaged)?;
        done
    }

    /// Gives back the memory that transactions left behind, pages of the databases in the first place. For a daemon that has
    /// read or written much at once.
    pub fn shrink(&self) -> Result<(), StoreError> {
        self.run.shrink()?;
        self.state.get().map_or(Ok(()), Db::shrink)
    }

    /// A directory that was wiped, or a database that another process set aside, is noticed by its inode: a daemon
    /// must not go on writing into a file that nobody else sees.
    fn refresh(&mut self) -> Result<(), StoreError> {
        if !self.read_only && !self.run.is_current() {
            let Opened { db, recovered } = Db::open(&self.dirs.run_db(), &schema::RUN)?;
            self.run = db;
            self.recovered.get_mut().extend(recovered);
            self.enter_boot()?;
        }
        if self.state.get().is_some_and(|state| !state.is_current()) {
            self.state.take();
        }
        Ok(())
    }

    /// Drops what does not outlive a boot when the file is of another one. Attachments and live networks stay: the
    /// caller may have more to clean than rows.
    fn enter_boot(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT rebuilt FROM meta WHERE boot_id = ?1";
        let of_this_boot = |half: &Half<'_>| half.row(sql, [self.boot.as_str()], |row| row.get::<_, bool>(0));
        if let Some(rebuilt) = of_this_boot(&self.run.begin(TransactionBehavior::Deferred)?)? {
            self.unsettled = !rebuilt;
            return Ok(());
        }
        let half = self.run.begin(TransactionBehavior::Immediate)?;
        // Another process of this boot may have been first.
        let rebuilt = of_this_boot(&half)?;
        self.unsettled = rebuilt != Some(true);
        if rebuilt.is_none() {
            for sql in [
                "DELETE FROM lease",
                "DELETE FROM freed",
                "DELETE FROM cursor",
                "DELETE FROM kept",
                "DELETE FROM port",
                "DELETE FROM published",
                "DELETE FROM sysctl_saved",
                "DELETE FROM uplink_closed",
                "DELETE FROM pool",
                "DELETE FROM session",
                "DELETE FROM shown",
                "DELETE FROM elsewhere",
                "DELETE FROM volume_use",
                "DELETE FROM meta",
            ] {
                half.execute(sql, [])?;
            }
            half.execute("INSERT INTO meta (boot_id) VALUES (?1)", [self.boot.as_str()])?;
        }
        half.commit()
    }

    /// Moves away what a transaction found damaged; the next one makes a fresh file.
    fn set_aside(&mut self, damaged: Damaged) -> Result<(), StoreError> {
        let Damaged { run, state } = damaged;
        if self.read_only {
            return Ok(());
        }
        let why = "found in a transaction";
        if run {
            self.recovered.get_mut().extend(set_aside_if_current(&self.run, why)?);
        }
        if let (true, Some(db)) = (state, self.state.get()) {
            let recovered = set_aside_if_current(db, why)?;
            self.recovered.get_mut().extend(recovered);
        }
        Ok(())
    }

    fn state_db(&self) -> Result<&Db, StoreError> {
        if let Some(db) = self.state.get() {
            return Ok(db);
        }
        let Opened { db, recovered } = Db::open(&self.dirs.state_db(), &schema::STATE)?;
        self.recovered.borrow_mut().extend(recovered);
        Ok(self.state.get_or_init(|| db))
    }
}

/// Which databases a transaction found damaged.
struct Damaged {
    run: bool,
    state: bool,
}

/// A view of the records.
pub struct ReadTx<'s> {
    store: &'s Store,
    behavior: TransactionBehavior,
    run: Half<'s>,
    state: OnceCell<Half<'s>>,
}

impl<'s> ReadTx<'s> {
    fn begin(store: &'s Store, behavior: TransactionBehavior) -> Result<Self, StoreError> {
        Ok(Self { store, behavior, run: store.run.begin(behavior)?, state: OnceCell::new() })
    }

    /// The boot the store was opened in.
    pub fn boot(&self) -> &BootId {
        &self.store.boot
    }

    pub(crate) fn run(&self) -> &Half<'s> {
        &self.run
    }

    /// The transaction on `state.db`, begun by its first use; the file is made if it is missing.
    pub(crate) fn state(&self) -> Result<&Half<'s>, StoreError> {
        if let Some(half) = self.state.get() {
            return Ok(half);
        }
        let half = self.store.state_db()?.begin(self.behavior)?;
        Ok(self.state.get_or_init(|| half))
    }

    /// As [`Self::state`], but a missing file stays missing: it has nothing to read.
    pub(crate) fn state_if_there(&self) -> Result<Option<&Half<'s>>, StoreError> {
        if self.state.get().is_none() && self.store.state.get().is_none() {
            match std::fs::metadata(self.store.dirs.state_db()) {
                Ok(_) => {}
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(err) => return Err(StoreError::from_io("look at", &self.store.dirs.state_db(), err)),
            }
        }
        self.state().map(Some)
    }

    fn damaged(&self) -> Damaged {
        Damaged { run: self.run.is_damaged(), state: self.state.get().is_some_and(Half::is_damaged) }
    }

    fn commit(self) -> Result<(), StoreError> {
        let Self { store: _, behavior: _, run, state } = self;
        if let Some(state) = state.into_inner() {
            state.commit()?;
        }
        run.commit()
    }
}

/// A change of the records: all that can be read, and the writes.
pub struct Tx<'s>(ReadTx<'s>);

impl Tx<'_> {
    /// Says that `run.db` holds what the kernel does. See [`Store::is_unsettled`].
    pub fn settle(&self) -> Result<(), StoreError> {
        self.run().execute("UPDATE meta SET rebuilt = 1", []).map(drop)
    }
}

impl<'s> Deref for Tx<'s> {
    type Target = ReadTx<'s>;

    fn deref(&self) -> &ReadTx<'s> {
        &self.0
    }
}
