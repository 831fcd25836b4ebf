//! `rvolume`: the methods.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_plugin_http::{Plugin, Refusal};
use berth_store::Dirs;
use berth_types::VolumeName;
use berth_volume_core::{Options, Size, Source, Usage, User, VolumeError, VolumeInfo, Volumes, rfc3339};
use serde_json::Value;

use crate::wire::{Capabilities, Create, Done, Got, Listed, Mountpoint, Named, Scope, Used, Volume};

/// The socket's name.
pub const SOCKET: &str = "rvolume.sock";

/// How often [`tidy`] is worth its cost.
pub const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Below what dockerd waits for: two minutes for `Create` and `Mount`, one for all others.
const LONG: Duration = Duration::from_secs(110);
const SHORT: Duration = Duration::from_secs(55);

/// How long `Get` asks again while the records cannot be read, and how often.
const GET_PATIENCE: Duration = Duration::from_secs(40);
const GET_PAUSE: Duration = Duration::from_millis(200);

/// How long a directory is counted for `Status`: dockerd asks at every start of a container.
const COUNT_PATIENCE: Duration = Duration::from_millis(2);

/// The mount id of every mount by podman: the SHA-256 of `placeholder` and a newline.
const PODMAN_ID: &str = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2";

/// How many open records are kept for the next call.
const KEPT: usize = 4;

/// The driver, on the volumes of one host.
pub fn plugin(dirs: &Dirs) -> Plugin {
    let driver = Arc::new(Driver { dirs: dirs.clone(), idle: Mutex::default() });
    let on = |driver: &Arc<Driver>| Arc::clone(driver);
    let (activated, create, get, list) = (on(&driver), on(&driver), on(&driver), on(&driver));
    let (mount, unmount, path, remove) = (on(&driver), on(&driver), on(&driver), driver);
    Plugin::implements(&["VolumeDriver"])
        .on_activate(move || activated.engine_started())
        .constant("VolumeDriver.Capabilities", Capabilities { capabilities: Scope { scope: "local" } })
        .call("VolumeDriver.Create", LONG, move |asked| create.create(asked))
        .call("VolumeDriver.Get", SHORT, move |asked| get.get(&asked))
        .ask("VolumeDriver.List", SHORT, move || list.list())
        .call("VolumeDriver.Mount", LONG, move |asked| mount.mount(&asked))
        .call("VolumeDriver.Unmount", SHORT, move |asked| unmount.unmount(&asked))
        .call("VolumeDriver.Path", SHORT, move |asked| path.path(&asked))
        .call("VolumeDriver.Remove", SHORT, move |asked| remove.remove(&asked))
}

/// Takes away what is left of volumes by crashes of engines and of berth. Blocks.
pub fn tidy(dirs: &Dirs) {
    match Volumes::open(dirs).and_then(|mut volumes| volumes.tidy()) {
        Ok(done) => done.iter().for_each(|what| tracing::info!(%what, "took away")),
        Err(err) => tracing::warn!(error = %chain(&err), "volumes not tidied"),
    }
}

struct Driver {
    dirs: Dirs,
    /// Records that are open and that no call uses now.
    idle: Mutex<Vec<Volumes>>,
}

impl Driver {
    /// Runs one call on the records.
    fn on<T>(&self, call: impl FnOnce(&mut Volumes) -> Result<T, VolumeError>) -> Result<T, VolumeError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut volumes = match idle {
            Some(volumes) => volumes,
            None => Volumes::open(&self.dirs)?,
        };
        let outcome = call(&mut volumes);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(volumes);
        }
        outcome
    }

    /// dockerd has started, or podman was called: on a thread of its own, for dockerd waits for the answer.
    fn engine_started(&self) {
        let dirs = self.dirs.clone();
        let look = move || {
            let looked = Volumes::open(&dirs).and_then(|mut volumes| volumes.engine_started(Source::Docker));
            if let Err(err) = looked {
                tracing::warn!(error = %chain(&err), "users of volumes were not checked");
            }
        };
        if let Err(err) = std::thread::Builder::new().name("berthd-users".to_owned()).spawn(look) {
            tracing::warn!(%err, "users of volumes were not checked");
        }
    }

    fn create(&self, asked: Create) -> Result<Done, Refusal> {
        let name = name(&asked.name)?;
        let options = plain_options(asked.opts.unwrap_or_default());
        self.on(|volumes| volumes.create(&name, &options)).map_err(refusal)?;
        Ok(Done { err: "" })
    }

    fn get(&self, asked: &Named) -> Result<Got, Refusal> {
        let name = name(&asked.name)?;
        let until = Instant::now() + GET_PATIENCE;
        let (info, usage) = loop {
            match self.look(&name) {
                // dockerd would take any refusal for "there is none", and forget the volume.
                Err(VolumeError::Store(err)) if err.is_transient() && Instant::now() < until => {
                    tracing::warn!(volume = %name, error = %chain(&err), "records cannot be read now");
                    std::thread::sleep(GET_PAUSE);
                }
                other => break other.map_err(refusal)?,
            }
        };
        Ok(Got { volume: described(&info, usage.as_ref()), err: "" })
    }

    fn look(&self, name: &VolumeName) -> Result<(VolumeInfo, Option<Usage>), VolumeError> {
        self.on(|volumes| {
            let info = volumes.inspect(name)?;
            let info = info.ok_or_else(|| VolumeError::NotFound { name: name.clone() })?;
            // What is wrong with its data does not make it unknown.
            let usage = volumes.usage(name, COUNT_PATIENCE);
            let usage = usage
                .inspect_err(|err| tracing::debug!(volume = %name, error = %chain(err), "size not known"));
            Ok((info, usage.ok()))
        })
    }

    fn list(&self) -> Result<Listed, Refusal> {
        let list = self.on(Volumes::list).map_err(refusal)?;
        // Of more than names and paths engines read nothing in a list, and it takes longer than all the rest.
        let volumes = list.iter().map(|info| Volume {
            name: info.name.to_string(),
            mountpoint: mountpoint(info),
            created_at: String::new(),
            status: BTreeMap::new(),
        });
        let volumes = volumes.collect();
        Ok(Listed { volumes, err: "" })
    }

    fn mount(&self, asked: &Used) -> Result<Mountpoint, Refusal> {
        let (name, user) = (name(&asked.name)?, user(&asked.id)?);
        let path = self.on(|volumes| volumes.mount(&name, &user)).map_err(refusal)?;
        Ok(Mountpoint { mountpoint: path.display().to_string(), err: "" })
    }

    fn unmount(&self, asked: &Used) -> Result<Done, Refusal> {
        let (name, user) = (name(&asked.name)?, user(&asked.id)?);
        self.on(|volumes| volumes.unmount(&name, &user)).map_err(refusal)?;
        Ok(Done { err: "" })
    }

    fn path(&self, asked: &Named) -> Result<Mountpoint, Refusal> {
        let name = name(&asked.name)?;
        let info = self.on(|volumes| volumes.inspect(&name)).map_err(refusal)?;
        let info = info.ok_or_else(|| refusal(VolumeError::NotFound { name }))?;
        Ok(Mountpoint { mountpoint: mountpoint(&info), err: "" })
    }

    fn remove(&self, asked: &Named) -> Result<Done, Refusal> {
        let name = name(&asked.name)?;
        // An engine does not ask this for a volume that a container of its own refers to.
        self.on(|volumes| volumes.retire(&name, Some(Source::Docker))).map_err(refusal)?;
        // Deleting may take longer than dockerd waits; the volume is gone already.
        let dirs = self.dirs.clone();
        let empty = move || {
            if let Err(err) = Volumes::open(&dirs).and_then(|mut volumes| volumes.empty_trash()) {
                tracing::warn!(error = %chain(&err), "the data of a removed volume is not all deleted yet");
            }
        };
        if let Err(err) = std::thread::Builder::new().name("berthd-trash".to_owned()).spawn(empty) {
            tracing::warn!(%err, "the data of a removed volume is not deleted yet");
        }
        Ok(Done { err: "" })
    }
}

/// Takes podman's own words out of the options. It reads some words of `o` itself, for its own `local` driver and for how
/// long it waits for a plugin, and sends each again as a key in capitals.
fn plain_options(mut options: Options) -> Options {
    for key in ["SIZE", "UID", "GID", "INODES"] {
        options.remove(key);
    }
    for (key, word) in [("TIMEOUT", "timeout"), ("NOQUOTA", "noquota")] {
        if options.remove(key).is_none() {
            continue;
        }
        if let Some(words) = options.remove("o") {
            let own = |given: &&str| given.split('=').next() != Some(word);
            let rest: Vec<&str> = words.split(',').filter(own).collect();
            if !rest.is_empty() {
                options.insert("o".to_owned(), rest.join(","));
            }
        }
    }
    options
}

fn name(text: &str) -> Result<VolumeName, Refusal> {
    VolumeName::new(text).map_err(|err| Refusal::from_error(&err))
}

fn user(id: &str) -> Result<User, Refusal> {
    let source = if id == PODMAN_ID { Source::Podman } else { Source::Docker };
    User::of_engine(source, id)
        .ok_or_else(|| Refusal::new("the mount id is empty, too long or has control characters in it"))
}

fn refusal(err: VolumeError) -> Refusal {
    Refusal::from_error(&err)
}

fn chain(err: &dyn std::error::Error) -> String {
    Refusal::from_error(err).to_string()
}

/// Where the data is, if it is there.
fn mountpoint(info: &VolumeInfo) -> String {
    let there = info.always_there || Path::new(&info.data).is_dir();
    if there { info.data.display().to_string() } else { String::new() }
}

fn described(info: &VolumeInfo, usage: Option<&Usage>) -> Volume {
    let options: BTreeMap<&str, &str> =
        info.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let users: Vec<String> = info.users.iter().map(ToString::to_string).collect();
    let mut status = BTreeMap::from([
        ("kind", Value::from(info.kind)),
        ("options", serde_json::json!(options)),
        ("users", Value::from(users)),
    ]);
    if let Some(differs) = &info.differs {
        status.insert("differs", Value::from(format!("it exists {differs}")));
    }
    if let Some(Usage { space, at_least, mounted }) = usage {
        let text = |bytes: u64| Size(bytes).to_string();
        if let Some(size) = space.size {
            status.insert("size", Value::from(text(size)));
        }
        if let Some(used) = space.used {
            let more = if *at_least { "more than " } else { "" };
            status.insert("used", Value::from(format!("{more}{}", text(used))));
        }
        if let Some(mounted) = mounted {
            status.insert("mounted", Value::from(*mounted));
        }
    }
    Volume {
        name: info.name.to_string(),
        mountpoint: mountpoint(info),
        created_at: rfc3339(info.created_ms),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn podmans_own_words_are_no_options() {
        for (given, plain) in [
            (&[("size", "1G")][..], &[("size", "1G")][..]),
            (&[("type", "tmpfs"), ("o", "size=1m"), ("SIZE", "1m")], &[("type", "tmpfs"), ("o", "size=1m")]),
            (&[("o", "timeout=9"), ("TIMEOUT", "9")], &[]),
            (&[("o", "bind,timeout=9,ro"), ("TIMEOUT", "9")], &[("o", "bind,ro")]),
            (&[("o", "timeout=9")], &[("o", "timeout=9")]),
        ] {
            assert_eq!(plain_options(options(given)), options(plain));
        }
    }

    #[test]
    fn whose_mount_it_is_shows_in_its_id() {
        assert_eq!(user(PODMAN_ID).unwrap().source, Source::Podman);
        assert_eq!(user(&"0f".repeat(32)).unwrap().source, Source::Docker);
        assert!(user("").is_err());
    }
}
