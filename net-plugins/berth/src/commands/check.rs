//! `check`: every attachment against the kernel.

use berth_core::Berth;
use berth_core::doctor::Checked;
use berth_types::NetworkName;

use super::lists::unknown;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

/// `check`
pub(super) fn check(
    berth: &mut Berth,
    network: Option<&NetworkName>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    const DOING: &str = "check attachments";
    let named = network.map(|name| Ok(berth.names().doing(DOING)?.find_network(name))).transpose()?;
    let network = named.as_ref();
    if let Some(name) = network {
        let known = berth.network(name).doing(DOING)?.is_some();
        // Ports of containers that other plugins attached have no network of berth's.
        if !known && berth.held().doing(DOING)?.iter().all(|(row, _)| row.key.network != *name) {
            return Err(unknown(&format!("check network {name}")));
        }
    }
    show(&berth.check_all(network).doing(DOING)?, out)
}

fn show(checked: &[Checked], out: &mut Out<'_>) -> Result<Exit, Failure> {
    let different = checked.iter().filter(|one| !one.differences.is_empty()).count();
    if out.is_json() {
        out.json(&checked)?;
    } else {
        for Checked { key, differences } in checked {
            if differences.is_empty() {
                let fine = out.coloured(Colour::Good, "ok");
                out.line(format!("{fine}    {key}"))?;
            } else {
                let wrong = out.coloured(Colour::Bad, "wrong");
                out.line(format!("{wrong} {key}"))?;
                differences.iter().try_for_each(|difference| out.line(format!("      {difference}")))?;
            }
        }
        match (checked.len(), different) {
            (0, _) => out.line("nothing is attached")?,
            (all, 0) => out.line(format!("{all} checked, all as recorded"))?,
            (all, some) => out.line(format!("{all} checked, {some} different; `berth doctor` says why"))?,
        }
    }
    Ok(if different == 0 { Exit::Fine } else { Exit::Differs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;
    use crate::views::samples;

    fn checked(differences: &[&str]) -> Checked {
        let (row, _) = samples::attachment();
        Checked { key: row.key, differences: differences.iter().map(ToString::to_string).collect() }
    }

    fn printed(checked: &[Checked], reader: Reader) -> (Exit, String) {
        let mut bytes = Vec::new();
        let exit = show(checked, &mut Out::new(&mut bytes, reader)).unwrap();
        (exit, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_difference_is_named_and_is_the_exit_status() {
        let (exit, text) = printed(&[checked(&[]), checked(&["bridge berth0 is down"])], Reader::Plain);
        assert_eq!(exit, Exit::Differs);
        insta::assert_snapshot!(text);
        assert_eq!(printed(&[checked(&[])], Reader::Plain).0, Exit::Fine);
        assert_eq!(printed(&[], Reader::Plain), (Exit::Fine, "nothing is attached\n".to_owned()));
        assert_eq!(printed(&[checked(&["x"])], Reader::Json).0, Exit::Differs);
    }
}
