//! The tables, by version. A released step is never edited: a change is a further step, and a further fixture.

/// One database's schema: step *n* leads from version *n* to *n* + 1 (`PRAGMA user_version`).
pub(crate) struct Schema {
    pub(crate) steps: &'static [&'static str],
    /// Set on each connection.
    pub(crate) pragmas: &'static str,
    /// Closing leaves what is in the log there, for the next one to read or to write back when it has grown. Writing it back
    /// at each close costs three syncs of the disk, and a command of a person is a close.
    pub(crate) keeps_log: bool,
}

impl Schema {
    /// The newest version.
    pub(crate) fn known(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }
}

/// `synchronous=OFF`: tmpfs has nothing to sync to, and on a disk a power failure ends the boot that the records belong
/// to, so that what it may tear is never read again. A crash of a process alone loses nothing with it.
pub(crate) const RUN: Schema = Schema {
    steps: &[RUN_1, RUN_2, RUN_VOLUMES, RUN_ELSEWHERE],
    pragmas: "PRAGMA synchronous=OFF;",
    keeps_log: false,
};

/// `synchronous=FULL`: a network that was acknowledged is there after a power failure.
pub(crate) const STATE: Schema = Schema {
    steps: &[STATE_1, STATE_VOLUMES, STATE_CLUSTER, STATE_ENGINES],
    pragmas: "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=250;",
    keeps_log: true,
};

const RUN_1: &str = "
CREATE TABLE meta (boot_id TEXT NOT NULL, rebuilt INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE attachment (
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'ready', 'deleting')),
  rules_gone INTEGER NOT NULL DEFAULT 0,
  boot_id TEXT NOT NULL,
  owner_pid INTEGER NOT NULL, owner_start INTEGER NOT NULL,
  sandbox_path BLOB, sandbox_dev INTEGER, sandbox_ino INTEGER,
  host_ifname TEXT UNIQUE,
  payload TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (network, container, ifname)
) STRICT;
CREATE INDEX attachment_to_unrule ON attachment (created_ms) WHERE state = 'deleting' AND rules_gone = 0;

CREATE TABLE port (
  proto INTEGER NOT NULL, port INTEGER NOT NULL, host_addr BLOB NOT NULL,
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  target BLOB NOT NULL, target_port INTEGER NOT NULL,
  PRIMARY KEY (proto, port, host_addr)
) STRICT, WITHOUT ROWID;
CREATE INDEX port_owner ON port (network, container, ifname);

CREATE TABLE published (
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  payload TEXT NOT NULL,
  PRIMARY KEY (network, container, ifname)
) STRICT, WITHOUT ROWID;

CREATE TABLE network (
  name TEXT PRIMARY KEY,
  bridge TEXT,
  payload TEXT NOT NULL,
  boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sysctl_saved (
  key TEXT PRIMARY KEY,
  before TEXT NOT NULL, after TEXT NOT NULL,
  boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE uplink_closed (
  family INTEGER NOT NULL, link TEXT NOT NULL,
  PRIMARY KEY (family, link)
) STRICT, WITHOUT ROWID;

CREATE TABLE lease (
  scope TEXT NOT NULL, address BLOB NOT NULL,
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  sandbox_path BLOB, sandbox_dev INTEGER, sandbox_ino INTEGER,
  cursor INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (scope, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_owner ON lease (network, container, ifname);

CREATE TABLE freed (
  scope TEXT NOT NULL, address BLOB NOT NULL,
  cursor INTEGER NOT NULL,
  freed_ms INTEGER NOT NULL,
  PRIMARY KEY (scope, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX freed_order ON freed (cursor, freed_ms, address);

CREATE TABLE cursor (
  id INTEGER PRIMARY KEY,
  scope TEXT NOT NULL, spec TEXT NOT NULL,
  next BLOB,
  UNIQUE (scope, spec)
) STRICT;

CREATE TABLE kept (
  scope TEXT NOT NULL, address BLOB NOT NULL,
  name TEXT NOT NULL,
  used_ms INTEGER NOT NULL,
  PRIMARY KEY (scope, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_name ON kept (scope, name);
";

/// Pools that an engine opened by themselves, how often an engine was started, and what people call things.
const RUN_2: &str = "
CREATE TABLE pool (
  id TEXT PRIMARY KEY,
  payload TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  name TEXT PRIMARY KEY,
  number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE shown (
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  payload TEXT NOT NULL,
  PRIMARY KEY (network, container, ifname)
) STRICT, WITHOUT ROWID;
";

/// Members of this host's networks that are on other hosts.
const RUN_ELSEWHERE: &str = "
CREATE TABLE elsewhere (
  network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL,
  payload TEXT NOT NULL,
  PRIMARY KEY (network, container, ifname)
) STRICT, WITHOUT ROWID;
";

const STATE_1: &str = "
CREATE TABLE network (
  name TEXT PRIMARY KEY,
  payload TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE static_lease (
  scope TEXT NOT NULL, address BLOB NOT NULL,
  name TEXT NOT NULL,
  used_ms INTEGER NOT NULL,
  PRIMARY KEY (scope, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX static_lease_name ON static_lease (scope, name);
";

/// Who uses which volume, and how often each took it.
const RUN_VOLUMES: &str = "
CREATE TABLE volume_use (
  volume TEXT NOT NULL, user TEXT NOT NULL,
  source TEXT NOT NULL,
  count INTEGER NOT NULL CHECK (count > 0),
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (volume, user)
) STRICT, WITHOUT ROWID;
";

const STATE_VOLUMES: &str = "
CREATE TABLE volume (
  name TEXT PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('pending', 'ready', 'removing')),
  boot_id TEXT NOT NULL,
  owner_pid INTEGER NOT NULL, owner_start INTEGER NOT NULL,
  payload TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Who this node is in its cluster, the cluster as last seen, and the node's blocks of addresses.
const STATE_CLUSTER: &str = "
CREATE TABLE cluster_node (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  name TEXT NOT NULL,
  identity TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  payload TEXT NOT NULL
) STRICT;

CREATE TABLE cluster_seen (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  revision INTEGER NOT NULL
) STRICT;

CREATE TABLE cluster_record (
  path TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cluster_block (
  network TEXT NOT NULL, cidr TEXT NOT NULL,
  stage TEXT NOT NULL CHECK (stage IN ('open', 'draining')),
  payload TEXT NOT NULL,
  PRIMARY KEY (network, cidr)
) STRICT, WITHOUT ROWID;

CREATE TABLE cluster_lend (
  network TEXT NOT NULL, address BLOB NOT NULL,
  direction TEXT NOT NULL CHECK (direction IN ('given', 'taken')),
  payload TEXT NOT NULL,
  PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;
";

/// Networks that an engine knows by numbers of its own.
const STATE_ENGINES: &str = "
CREATE TABLE engine_network (
  engine TEXT NOT NULL, id TEXT NOT NULL,
  network TEXT NOT NULL,
  payload TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (engine, id),
  UNIQUE (engine, network)
) STRICT, WITHOUT ROWID;
";
