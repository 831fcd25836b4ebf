//! `volume`: everything about volumes, without any daemon.

mod args;
mod change;
mod list;
mod progress;
mod transfer;
mod view;

pub(crate) use args::VolumeCommand;

use berth_store::Dirs;
use berth_volume_core::{Access, Options, Volumes};

use self::args::OptionArgs;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

/// Runs one command.
pub(super) fn run(command: &VolumeCommand, dirs: &Dirs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let mut volumes = Volumes::open(dirs).doing("open the records")?;
    let volumes = &mut volumes;
    match command {
        VolumeCommand::Create { name, options, dry_run } => {
            change::create(volumes, name.as_ref(), &given(options)?, *dry_run, out)
        }
        VolumeCommand::Ls { quiet } => list::ls(volumes, *quiet, out),
        VolumeCommand::Inspect { names } => list::inspect(volumes, names, out),
        VolumeCommand::Rm { names, sure } => change::rm(volumes, names, *sure, out),
        VolumeCommand::Prune { all, sure } => change::prune(volumes, *all, *sure, out),
        VolumeCommand::Df { names } => list::df(volumes, names, out),
        VolumeCommand::Mount { name, target, read_only } => {
            let access = if *read_only { Access::ReadOnly } else { Access::ReadWrite };
            change::mount(volumes, name, target, access, out)
        }
        VolumeCommand::Unmount { name, target, user } => {
            change::unmount(volumes, name, target.as_deref(), user.as_deref(), out)
        }
        VolumeCommand::Rename { name, new } => change::rename(volumes, name, new, out),
        VolumeCommand::Resize { name, size } => change::resize(volumes, name, size, out),
        VolumeCommand::Clone { name, new, options } => {
            transfer::clone(volumes, name, new, some(given(options)?).as_ref(), out)
        }
        VolumeCommand::Export { name, file, zstd } => {
            transfer::export(volumes, name, file.as_deref(), *zstd, out)
        }
        VolumeCommand::Import { name, file, options } => {
            transfer::import(volumes, name, file.as_deref(), some(given(options)?).as_ref(), out)
        }
    }
}

/// Takes away what is left of volumes; for `gc`. In words.
pub(super) fn tidy(dirs: &Dirs) -> Result<Vec<String>, Failure> {
    Volumes::open(dirs).and_then(|mut volumes| volumes.tidy()).doing("tidy the volumes")
}

/// The options by key. One that is given twice is a mistake: which one was meant is not known.
fn given(args: &OptionArgs) -> Result<Options, Failure> {
    let mut options = Options::new();
    for (key, value) in &args.options {
        if let Some(before) = options.insert(key.clone(), value.clone()) {
            let why = format!("`{key}` is given twice, as `{before}` and as `{value}`");
            return Err(Failure::plain("read the options", why));
        }
    }
    Ok(options)
}

/// No options at all are none given.
fn some(options: Options) -> Option<Options> {
    (!options.is_empty()).then_some(options)
}
