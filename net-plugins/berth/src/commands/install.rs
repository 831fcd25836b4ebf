//! `install` and `uninstall`: prints what [`crate::install`] decided and did.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::InstallArgs;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::install::{Action, Entry, LinkKind, Names, Source, Taking, apply, plan, plan_removal, take};
use crate::managers::{self, FileAction, ManagerFile};
use crate::output::{Colour, Out};

#[derive(Serialize)]
struct Report<'a, T> {
    dry_run: bool,
    dir: &'a Path,
    entries: &'a [T],
    /// Of network managers.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    files: &'a [ManagerFile],
}

/// `install`
pub(super) fn install(args: &InstallArgs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let InstallArgs { dir, reference_names, hard_links, network_managers, force, dry_run } = args;
    let doing = format!("install into {}", dir.display());
    let source = source(&doing, if *hard_links { LinkKind::Hard } else { LinkKind::Symbolic })?;
    let names = if *reference_names { Names::All } else { Names::Own };
    let entries = plan(dir, names, &source, *force).doing(&doing)?;
    if !dry_run {
        apply(dir, &source, &entries).doing(&doing)?;
    }
    let files = match network_managers {
        true => managers::install(Path::new("/"), *dry_run).doing(&doing)?,
        false => Vec::new(),
    };
    if out.is_json() {
        out.json(&Report { dry_run: *dry_run, dir, entries: &entries, files: &files })?;
    } else {
        for entry in &entries {
            let line = said(entry, *dry_run, out);
            out.line(line)?;
        }
        for file in &files {
            let line = said_of_file(file, *dry_run, out);
            out.line(line)?;
        }
    }
    let refused = entries.iter().any(|entry| matches!(entry.action, Action::Refuse { .. }))
        || files.iter().any(|file| file.action == FileAction::Refuse);
    Ok(if refused { Exit::Differs } else { Exit::Fine })
}

fn said(entry: &Entry, dry_run: bool, out: &Out<'_>) -> String {
    let Entry { name, action } = entry;
    let linked = if dry_run { "would link" } else { "linked" };
    match action {
        Action::Keep => format!("{name} is installed already"),
        Action::Link => format!("{linked} {name}"),
        Action::Relink { was } => format!("{linked} {name}, which led to {}", was.display()),
        Action::Replace { backup } => format!("{linked} {name}; what was there is kept as {backup}"),
        Action::Refuse { what } => {
            let kept = out.coloured(Colour::Warn, &format!("kept {name}"));
            format!("{kept}: it is {what} and not berth's; `--force` replaces files and keeps them beside")
        }
    }
}

fn said_of_file(ManagerFile { file, action }: &ManagerFile, dry_run: bool, out: &Out<'_>) -> String {
    let file = file.display();
    match action {
        FileAction::Keep => format!("{file} is there already"),
        FileAction::Write if dry_run => format!("would write {file}"),
        FileAction::Write => format!("wrote {file}"),
        FileAction::Remove if dry_run => format!("would remove {file}"),
        FileAction::Remove => format!("removed {file}"),
        FileAction::Refuse => {
            let kept = out.coloured(Colour::Warn, &format!("kept {file}"));
            format!("{kept}: somebody changed it; remove it to have berth's")
        }
    }
}

/// `uninstall`
pub(super) fn uninstall(dir: &Path, dry_run: bool, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let doing = format!("uninstall from {}", dir.display());
    let source = source(&doing, LinkKind::Symbolic)?;
    let entries = plan_removal(dir, &source).doing(&doing)?;
    if !dry_run {
        take(dir, &entries).doing(&doing)?;
    }
    let files = managers::uninstall(Path::new("/"), dry_run).doing(&doing)?;
    if out.is_json() {
        out.json(&Report { dry_run, dir, entries: &entries, files: &files })?;
        return Ok(Exit::Fine);
    }
    if entries.is_empty() {
        out.line(format!("nothing of berth's is in {}", dir.display()))?;
    }
    let (removed, restored) =
        if dry_run { ("would remove", "would put back") } else { ("removed", "put back") };
    for Taking { name, backup } in &entries {
        match backup {
            None => out.line(format!("{removed} {name}"))?,
            Some(backup) => out.line(format!("{removed} {name}, {restored} {backup} as {name}"))?,
        }
    }
    for file in &files {
        let line = said_of_file(file, dry_run, out);
        out.line(line)?;
    }
    Ok(Exit::Fine)
}

/// This program.
fn source(doing: &str, kind: LinkKind) -> Result<Source, Failure> {
    let path: PathBuf = std::env::current_exe().and_then(std::fs::canonicalize).doing(doing)?;
    Source::new(path, kind).doing(doing)
}
