//! `volume ls`, `inspect`, `df`.

use std::time::Duration;

use berth_types::VolumeName;
use berth_volume_core::{Usage, VolumeError, VolumeInfo, Volumes};

use super::view::VolumeView;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

/// How long a directory is counted for a person who waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long where counting is what was asked for.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// `volume ls`
pub(super) fn ls(volumes: &mut Volumes, quiet: bool, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let list = volumes.list().doing("list volumes")?;
    if quiet && !out.is_json() {
        list.iter().try_for_each(|info| out.line(info.name.as_str()))?;
        return Ok(Exit::Fine);
    }
    let views: Vec<VolumeView> = list.into_iter().map(|info| VolumeView::new(info, None)).collect();
    if out.is_json() {
        out.json(&views)?;
    } else {
        let rows = views.iter().map(VolumeView::row).collect();
        out.table(VolumeView::HEAD, rows, "no volumes: `berth volume create NAME` makes one")?;
    }
    Ok(Exit::Fine)
}

/// `volume inspect`
pub(super) fn inspect(
    volumes: &mut Volumes,
    names: &[VolumeName],
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let mut views = Vec::new();
    for name in names {
        let doing = format!("inspect volume {name}");
        let info = volumes.inspect(name).doing(&doing)?;
        let info = info.ok_or_else(|| VolumeError::NotFound { name: name.clone() }).doing(&doing)?;
        // What keeps its size from being known does not keep it from being shown.
        let usage = volumes.usage(name, PATIENCE).ok();
        views.push(VolumeView::new(info, usage.as_ref()));
    }
    if out.is_json() {
        out.json(&views)?;
        return Ok(Exit::Fine);
    }
    for (index, view) in views.iter().enumerate() {
        if index > 0 {
            out.line("")?;
        }
        show(view, out)?;
    }
    Ok(Exit::Fine)
}

fn show(view: &VolumeView, out: &mut Out<'_>) -> Result<(), Failure> {
    for (label, value) in view.facts() {
        let label = out.coloured(Colour::Quiet, &format!("{label:<8}"));
        out.line(format!("{label} {value}"))?;
    }
    Ok(())
}

/// `volume df`
pub(super) fn df(volumes: &mut Volumes, names: &[VolumeName], out: &mut Out<'_>) -> Result<Exit, Failure> {
    const DOING: &str = "count what volumes hold";
    let mut list: Vec<VolumeInfo> = volumes.list().doing(DOING)?;
    if let Some(missing) = names.iter().find(|name| !list.iter().any(|info| info.name == **name)) {
        return Err(Failure::new(DOING, &VolumeError::NotFound { name: missing.clone() }));
    }
    list.retain(|info| names.is_empty() || names.contains(&info.name));
    let mut exit = Exit::Fine;
    let mut views = Vec::new();
    for info in list {
        let usage: Option<Usage> = match volumes.usage(&info.name, LONG_PATIENCE) {
            Ok(usage) => Some(usage),
            Err(_) => {
                exit = Exit::Differs;
                None
            }
        };
        views.push(VolumeView::new(info, usage.as_ref()));
    }
    if out.is_json() {
        out.json(&views)?;
    } else {
        out.table(VolumeView::DF_HEAD, views.iter().map(VolumeView::df_row).collect(), "no volumes")?;
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::super::view::samples;
    use super::*;
    use crate::output::Reader;

    fn printed(reader: Reader, print: impl FnOnce(&mut Out<'_>)) -> String {
        let mut bytes = Vec::new();
        print(&mut Out::new(&mut bytes, reader));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn everything_about_a_volume_is_shown() {
        let view = samples::view();
        insta::assert_snapshot!("volume_inspect", printed(Reader::Plain, |out| show(&view, out).unwrap()));
        insta::assert_snapshot!("volume_json", printed(Reader::Json, |out| out.json(&[&view]).unwrap()));
        insta::assert_snapshot!(
            "volume_df",
            printed(Reader::Plain, |out| out.table(VolumeView::DF_HEAD, vec![view.df_row()], "").unwrap())
        );
    }
}
