//! `cargo xtask bench`: berth beside what people would otherwise run, written into `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::build::{self, target_dir};
use crate::plot::{Bar, Chart};
use crate::run::{cargo, command, output, say, stage};
use crate::{packages, page, plot};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is measured.
    #[arg(value_enum, default_value_t = Subject::Cni)]
    subject: Subject,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// The CNI plugins.
    Cni,
    /// Docker's network driver.
    Docker,
    /// Volumes.
    Volumes,
    /// The DNS server.
    Dns,
    /// Networks across hosts.
    Overlay,
}

/// A figure, as the bench prints it.
#[derive(Debug, Deserialize)]
struct Row {
    work: String,
    unit: String,
    berth: f64,
    beside: Option<Beside>,
    /// What was to be reached, in words; empty where the figure is only to be seen.
    wanted: String,
    met: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Beside {
    name: String,
    value: f64,
    /// How many times its figure berth's is: not always that of the two figures, where what was compared took turns.
    times: f64,
}

/// Builds with optimisation, measures, and writes the table and the picture.
pub(crate) fn bench(options: &Options) -> Result<()> {
    packages::provide()?;
    match options.subject {
        Subject::Cni => cni(),
        Subject::Docker => docker(),
        Subject::Volumes => volumes(),
        Subject::Dns => dns(),
        Subject::Overlay => overlay(),
    }
}

/// berth on one dockerd, beside Docker's own driver.
fn docker() -> Result<()> {
    let rows = rows(&output(program("berth-bench-docker")?)?)?;
    let table = table(&rows);
    say(&table);
    let docker = output(command(&["dockerd", "--version"]))?;
    let text = format!(
        "`cargo xtask bench docker`: calls of Docker's API on one daemon ({}), the drivers in turn. {}.\n\n{table}",
        docker.trim(),
        machine()?,
    );
    page::write_section("Docker", &text)
}

/// berth's volumes on one dockerd, beside Docker's own driver, and beside `tar`.
fn volumes() -> Result<()> {
    let rows = rows(&output(program("berth-bench-volumes")?)?)?;
    let table = table(&rows);
    say(&table);
    let docker = output(command(&["dockerd", "--version"]))?;
    let text = format!(
        "`cargo xtask bench volumes`: calls of Docker's API and of the plugin's socket on one daemon ({}), and whole processes \
         for files; who is measured takes turns with what is beside it. {}. All data is on the machine's disk. What is \
         durable waits for that disk: no create can be faster than the syncs it needs.\n\n{table}",
        docker.trim(),
        machine()?,
    );
    page::write_section("Volumes", &text)
}

/// The DNS server, beside others that serve names.
fn dns() -> Result<()> {
    let bench = ["--package", "berth-integration", "--bin", "berth-bench-dns"];
    stage("build", cargo(&[&["build", "--release"], &bench[..]].concat()))?;
    let rows = rows(&output(command(&[&format!("{}/release/berth-bench-dns", target_dir()?)]))?)?;
    let table = table(&rows);
    say(&table);
    let text = format!(
        "`cargo xtask bench dns`: questions answered a second, by dnsperf on the same machine, which takes its part of the \
         processors. All servers have the same names and are asked in turn, each on its own; figures are medians of the rounds. \
         {}. The others are Debian's: aardvark-dns is podman's, dnsmasq reads a hosts file, Knot has a zone. The bare \
         responder turns the header of what it gets and sends it back.\n\n{table}",
        machine()?,
    );
    page::write_section("DNS", &text)
}

/// One network on several hosts, beside a VXLAN laid by hand and Docker's swarm overlay.
fn overlay() -> Result<()> {
    let example = ["--package", "berth-overlay", "--example", "overlay_figures"];
    stage("build the measure of one process", cargo(&[&["build", "--release"], &example[..]].concat()))?;
    let mut run = program("berth-bench-overlay")?;
    run.env("BERTH_OVERLAY_FIGURES", format!("{}/release/examples/overlay_figures", target_dir()?));
    let rows = rows(&output(run)?)?;
    let table = table(&rows);
    say(&table);
    let (docker, etcd) =
        (output(command(&["dockerd", "--version"]))?, output(command(&["etcd", "--version"]))?);
    let text = format!(
        "`cargo xtask bench overlay`: three hosts behind a router that carries packets of 1500 bytes, a real etcd of one member on \
         the router ({}), and {} as a swarm on two of the hosts. {}. What is compared takes turns; traffic is between containers on \
         two hosts, in memory of one machine, so that what is compared is the work of the processors. An attachment is seen when the \
         kernels of the other nodes have said that its entries are written and all DNS servers have answered for its name; Docker's \
         is measured by the same two signs, from before a running container is connected. A container of Docker's on a network of \
         berth's is started by its client; less than nothing is before that has returned.\n\n{table}",
        etcd.lines().next().unwrap_or_default(),
        docker.trim(),
        machine()?,
    );
    page::write_section("Overlay", &text)
}

fn cni() -> Result<()> {
    stage(
        "build the filler",
        cargo(&["build", "--release", "--package", "berth-ipam", "--example", "fill_pool"]),
    )?;
    let mut run = program("berth-bench")?;
    run.arg("cni").env("BERTH_FILL_POOL", format!("{}/release/examples/fill_pool", target_dir()?));
    let rows = rows(&output(run)?)?;
    let table = table(&rows);
    say(&table);
    let text = format!(
        "`cargo xtask bench cni`: whole processes. {}.\n\
         The reference plugins are Debian's containernetworking-plugins: `bridge` with `host-local`, then `portmap`. \
         netavark is podman's, where it is installed.\n\n\
         ![ADD and DEL of one container with one published port](benchmarks.svg)\n\n{table}",
        machine()?,
    );
    fs::write("docs/benchmarks.svg", plot::svg(&charts(&rows)))
        .context("failed to write docs/benchmarks.svg")?;
    page::write_section("CNI", &text)
}

/// A bench, built, with berth's programs as they are installed.
fn program(name: &str) -> Result<Command> {
    let (berth, berthd) = (build::plugins()?, build::daemon()?);
    let package = ["--package", "berth-integration", "--bin", name];
    stage("build the bench", cargo(&[&["build", "--release"], &package[..]].concat()))?;
    let mut program = command(&[&format!("{}/release/{name}", target_dir()?)]);
    program.env("BERTH_BIN", berth).env("BERTHD_BIN", berthd);
    Ok(program)
}

fn rows(printed: &str) -> Result<Vec<Row>> {
    let row = |line| serde_json::from_str(line).with_context(|| format!("the bench printed {line:?}"));
    printed.lines().map(row).collect()
}

/// What it was measured on.
fn machine() -> Result<String> {
    let kernel = output(command(&["uname", "-r"]))?;
    Ok(format!("Linux {}, {} CPUs", kernel.trim(), std::thread::available_parallelism()?))
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| work | berth | beside it | ratio | wanted | reached |\n|---|---|---|---|---|---|\n".to_owned();
    for Row { work, unit, berth, beside, wanted, met } in rows {
        let figure = |value: f64| format!("{} {unit}", rounded(value));
        let (other, ratio) = match beside {
            Some(Beside { name, value, times }) => {
                (format!("{name}: {}", figure(*value)), format!("{times:.2}"))
            }
            None => Default::default(),
        };
        let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
        let _ = writeln!(text, "| {work} | {} | {other} | {ratio} | {wanted} | {met} |", figure(*berth));
    }
    text
}

/// Three digits that say something.
fn rounded(value: f64) -> String {
    let digits = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.digits$}")
}

/// One chart for attaching and one for detaching a container with one port: berth and everything it stands beside.
fn charts(rows: &[Row]) -> Vec<Chart> {
    let chart = |title: &str, start: &str| {
        let of_work = || rows.iter().filter(|row| row.work.starts_with(start));
        let berth = of_work().next().map(|row| Bar { name: "berth".to_owned(), value: row.berth });
        let others = of_work().filter_map(|row| row.beside.as_ref());
        let others = others.map(|beside| Bar { name: beside.name.replace('`', ""), value: beside.value });
        Chart {
            title: title.to_owned(),
            unit: "ms".to_owned(),
            bars: berth.into_iter().chain(others).collect(),
        }
    };
    vec![
        chart("Attach a container, one published port", "ADD, bridge"),
        chart("Detach it", "DEL of the same"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([0.021, 5.4, 12.34, 159.4].map(rounded), ["0.02", "5.40", "12.3", "159"]);
    }

    #[test]
    fn a_figure_that_falls_short_says_so() {
        let line = r#"{"work":"ADD","unit":"ms","berth":5.0,"beside":{"name":"other","value":50.0,"times":0.1},"wanted":"≤ 4 ms","met":false}"#;
        let table = table(&[serde_json::from_str(line).unwrap()]);
        assert!(table.ends_with("| ADD | 5.00 ms | other: 50.0 ms | 0.10 | ≤ 4 ms | **no** |\n"), "{table}");
    }
}
