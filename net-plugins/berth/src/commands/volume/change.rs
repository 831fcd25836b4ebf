//! `volume create`, `rm`, `prune`, `mount`, `unmount`, `rename`, `resize`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use berth_types::VolumeName;
use berth_volume_core::{Access, Created, Options, Volumes, parse_options};
use serde::Serialize;

use super::args::SureArgs;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    volume: &'a str,
    what: &'a str,
}

fn say(out: &mut Out<'_>, name: &VolumeName, what: &str) -> Result<Exit, Failure> {
    if out.is_json() {
        out.json(&Done { dry_run: None, volume: name.as_str(), what })?;
    } else {
        out.line(format!("{what} volume {name}"))?;
    }
    Ok(Exit::Fine)
}

/// `volume create`
pub(super) fn create(
    volumes: &mut Volumes,
    name: Option<&VolumeName>,
    options: &Options,
    dry_run: bool,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let made_up;
    let name = match name {
        Some(name) => name,
        None => {
            made_up = made_up_name()?;
            &made_up
        }
    };
    let doing = format!("create volume {name}");
    let kind = parse_options(options).doing(&doing)?.kind();
    let what = if dry_run {
        if volumes.inspect(name).doing(&doing)?.is_some() { "exists" } else { "would create" }
    } else {
        match volumes.create(name, options).doing(&doing)? {
            Created::New => "created",
            Created::Existing => "exists",
        }
    };
    if out.is_json() {
        out.json(&Done { dry_run: Some(dry_run), volume: name.as_str(), what })?;
    } else if dry_run {
        out.line(format!("{what}: {kind} volume {name}"))?;
    } else {
        // As Docker prints it, for scripts that keep it.
        out.line(name.as_str())?;
    }
    Ok(Exit::Fine)
}

/// A name as engines make them up.
fn made_up_name() -> Result<VolumeName, Failure> {
    const DOING: &str = "make up a name";
    let uuid = || std::fs::read_to_string("/proc/sys/kernel/random/uuid").doing(DOING);
    let digits = format!("{}{}", uuid()?, uuid()?).replace(['-', '\n'], "");
    VolumeName::new(digits).doing(DOING)
}

#[derive(Serialize)]
struct Removed<'a> {
    dry_run: bool,
    removed: Vec<&'a VolumeName>,
    kept: Vec<Kept<'a>>,
}

#[derive(Serialize)]
struct Kept<'a> {
    volume: &'a VolumeName,
    why: String,
}

/// `volume rm`
pub(super) fn rm(
    volumes: &mut Volumes,
    names: &[VolumeName],
    sure: SureArgs,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let list: Vec<&str> = names.iter().map(VolumeName::as_str).collect();
    let doing = format!("remove volume {}", list.join(", "));
    if sure.dry_run {
        // What would be refused is refused now.
        for name in names {
            volumes.check_removable(name).doing(&doing)?;
        }
    } else {
        ask(sure, &doing, &format!("Remove {} with the data in it?", list.join(", ")))?;
    }
    let (mut removed, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let outcome = if sure.dry_run { Ok(()) } else { volumes.remove(name, None) };
        match outcome {
            Ok(()) => removed.push(name),
            Err(err) => failures.push((name, err)),
        }
    }
    // The first one is told as why the command failed; programs get them all.
    let told = if out.is_json() { 0 } else { 1 };
    let kept = failures.iter().skip(told).map(|(name, err)| (*name, err.to_string())).collect();
    if failures.len() != 1 || !removed.is_empty() || out.is_json() {
        report(out, sure.dry_run, &removed, kept)?;
    }
    match failures.into_iter().next() {
        None => Ok(Exit::Fine),
        Some((name, err)) => Err(Failure::new(format!("remove volume {name}"), &err)),
    }
}

/// `volume prune`
pub(super) fn prune(
    volumes: &mut Volumes,
    all: bool,
    sure: SureArgs,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    const DOING: &str = "prune volumes";
    let wanted = volumes.prune(all, true).doing(DOING)?;
    let pruned = if sure.dry_run || wanted.removed.is_empty() {
        wanted
    } else {
        let list: Vec<&str> = wanted.removed.iter().map(VolumeName::as_str).collect();
        let warning = "Containers that are stopped and refer to one of them lose its data.";
        ask(sure, DOING, &format!("Remove {} with the data in them? {warning}", list.join(", ")))?;
        volumes.prune(all, false).doing(DOING)?
    };
    let kept: Vec<(&VolumeName, String)> =
        pruned.kept.iter().map(|(name, why)| (name, why.clone())).collect();
    let differs = !kept.is_empty();
    report(out, sure.dry_run, &pruned.removed.iter().collect::<Vec<_>>(), kept)?;
    Ok(if differs { Exit::Differs } else { Exit::Fine })
}

fn report(
    out: &mut Out<'_>,
    dry_run: bool,
    removed: &[&VolumeName],
    kept: Vec<(&VolumeName, String)>,
) -> Result<(), Failure> {
    if out.is_json() {
        let kept = kept.into_iter().map(|(volume, why)| Kept { volume, why }).collect();
        return out.json(&Removed { dry_run, removed: removed.to_vec(), kept });
    }
    let what = if dry_run { "would remove" } else { "removed" };
    removed.iter().try_for_each(|name| out.line(format!("{what} volume {name}")))?;
    for (name, why) in &kept {
        let first = why.lines().next().unwrap_or_default();
        let line = out.coloured(Colour::Warn, &format!("kept volume {name}: {first}"));
        out.line(line)?;
    }
    if removed.is_empty() && kept.is_empty() {
        let nothing = out.coloured(Colour::Quiet, "nothing to do");
        out.line(nothing)?;
    }
    Ok(())
}

/// Asks the person at the terminal. Where there is none, `--yes` has to be said.
fn ask(sure: SureArgs, doing: &str, question: &str) -> Result<(), Failure> {
    if sure.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::plain(doing, "it destroys data, and there is nobody to ask")
            .with_hint("say `--yes` if it is meant, or `--dry-run` to see what it would do"));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).doing(doing)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).doing(doing)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::plain(doing, "you said no"))
    }
}

/// `volume mount`
pub(super) fn mount(
    volumes: &mut Volumes,
    name: &VolumeName,
    target: &Path,
    access: Access,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let doing = format!("mount volume {name} on `{}`", target.display());
    volumes.mount_on(name, target, access).doing(&doing)?;
    say(out, name, "mounted")
}

#[derive(Serialize)]
struct Unmounted<'a> {
    volume: &'a VolumeName,
    targets: Vec<String>,
}

/// `volume unmount`
pub(super) fn unmount(
    volumes: &mut Volumes,
    name: &VolumeName,
    target: Option<&Path>,
    user: Option<&str>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    if let Some(user) = user {
        let doing = format!("forget user {user} of volume {name}");
        if !volumes.forget_user(name, user).doing(&doing)? {
            return Err(Failure::plain(doing, "it is no user of it")
                .with_hint(format!("`berth volume inspect {name}` shows who is")));
        }
        return say(out, name, "forgot a user of");
    }
    let doing = format!("unmount volume {name}");
    let targets = volumes.unmount_from(name, target).doing(&doing)?;
    let targets: Vec<String> = targets.iter().map(|path| path.display().to_string()).collect();
    if out.is_json() {
        out.json(&Unmounted { volume: name, targets })?;
        return Ok(Exit::Fine);
    }
    if targets.is_empty() {
        let nothing = out.coloured(Colour::Quiet, "it is not mounted there");
        out.line(nothing)?;
    }
    targets.iter().try_for_each(|target| out.line(format!("unmounted volume {name} from {target}")))?;
    Ok(Exit::Fine)
}

/// `volume rename`
pub(super) fn rename(
    volumes: &mut Volumes,
    name: &VolumeName,
    new: &VolumeName,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    volumes.rename(name, new).doing(&format!("rename volume {name} to {new}"))?;
    say(out, new, "renamed to")
}

/// `volume resize`
pub(super) fn resize(
    volumes: &mut Volumes,
    name: &VolumeName,
    size: &str,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    volumes.resize(name, size).doing(&format!("resize volume {name} to {size}"))?;
    say(out, name, "resized")
}
