//! `network share`, and what `overlay status` says of shared networks.

use berth_overlay::call;
use berth_overlay::shared::{self, Outcome, State};
use berth_overlay::wire::ShareNetwork;
use berth_store::Dirs;
use berth_types::NetworkName;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

#[derive(Serialize)]
struct Shared<'a> {
    network: &'a NetworkName,
    shared: bool,
    /// What came of it here; absent where nobody sees to it.
    here: Option<&'a Outcome>,
}

/// `network share`
pub(super) fn share(dirs: &Dirs, name: &NetworkName, off: bool, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let doing = if off { format!("stop sharing network {name}") } else { format!("share network {name}") };
    let ask = ShareNetwork { name: name.clone(), shared: !off };
    call::share(&dirs.run, &ask).doing(&doing)?;
    let here = match shared::settle(&dirs.run, name) {
        Ok(outcome) => Some(outcome),
        // Other nodes have it nevertheless.
        Err(err) if err.is_nobody() => None,
        Err(err) => return Err(Failure::new("see to it on this node, though the cluster has it", &err)),
    };
    if out.is_json() {
        out.json(&Shared { network: name, shared: !off, here: here.as_ref() })?;
    } else {
        let done = if off { "no longer shared" } else { "shared" };
        out.line(format!("network {name} is {done}; {}", here_in_words(here.as_ref())))?;
    }
    let is_done = here.is_none_or(|one| !matches!(one.state, State::Kept | State::Failed));
    Ok(if is_done { Exit::Fine } else { Exit::Differs })
}

fn here_in_words(here: Option<&Outcome>) -> String {
    match here {
        None => "on this host nobody sees to it: berthd does not run here, or without its role `docker`"
            .to_owned(),
        Some(outcome) => format!("on this host {}", in_words(outcome)),
    }
}

fn in_words(Outcome { network: _, state, why }: &Outcome) -> String {
    match state {
        State::Present => "Docker has it".to_owned(),
        State::Absent => "Docker does not have it".to_owned(),
        State::NoEngine => format!("no Docker answers: {why}"),
        State::Kept => why.clone(),
        State::Failed => format!("Docker does not have it yet, and is asked again: {why}"),
    }
}

/// What became of shared networks on this host, for people; nothing where nobody sees to it.
pub(super) fn all(dirs: &Dirs) -> Vec<Outcome> {
    shared::all(&dirs.run).unwrap_or_default()
}

/// A line for each.
pub(super) fn facts(outcomes: &[Outcome]) -> Vec<(&'static str, String)> {
    outcomes.iter().map(|one| ("shared", format!("{}: {}", one.network, in_words(one)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_a_sentence() {
        let outcome =
            |state, why: &str| Outcome { network: "app".parse().unwrap(), state, why: why.to_owned() };
        for (state, why, words) in [
            (State::Present, "", "on this host Docker has it"),
            (State::Absent, "", "on this host Docker does not have it"),
            (
                State::NoEngine,
                "there is no /run/docker.sock",
                "no Docker answers: there is no /run/docker.sock",
            ),
            (State::Kept, "Docker has it here as `other`", "on this host Docker has it here as `other`"),
            (State::Failed, "no", "is asked again: no"),
        ] {
            let said = here_in_words(Some(&outcome(state, why)));
            assert!(said.contains(words), "{said}");
        }
        assert!(here_in_words(None).contains("its role `docker`"));
    }
}
