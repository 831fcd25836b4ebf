//! `completions` and `man`: made from the definition of the command line, so they cannot differ from it.

use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

/// `completions`
pub(super) fn completions(shell: clap_complete::Shell, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Fine)
}

/// `man`
pub(super) fn man(to: Option<&Path>, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if let Some(dir) = to {
        let doing = format!("write manual pages into {}", dir.display());
        std::fs::create_dir_all(dir).doing(&doing)?;
        clap_mangen::generate_to(Cli::command(), dir).doing(&doing)?;
        return Ok(Exit::Fine);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).doing("write the manual page")?;
    out.bytes(&page)?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;
    use clap::ValueEnum as _;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in clap_complete::Shell::value_variants() {
            let mut bytes = Vec::new();
            completions(*shell, &mut Out::new(&mut bytes, Reader::Plain)).unwrap();
            let script = String::from_utf8(bytes).unwrap();
            for word in ["doctor", "uninstall", "dry-run"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
        }
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        man(None, &mut Out::new(&mut bytes, Reader::Plain)).unwrap();
        assert!(String::from_utf8(bytes).unwrap().starts_with(".ie"));
        man(Some(dir.path()), &mut Out::new(&mut Vec::new(), Reader::Plain)).unwrap();
        assert!(dir.path().join("berth.1").is_file());
        assert!(dir.path().join("berth-network-ls.1").is_file());
    }
}
