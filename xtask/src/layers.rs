//! The layer check: a crate depends on crates below it only, design section 11.

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::run::{cargo, output, say};

/// Every crate of the workspace with its level. An arrow goes from a higher level to a lower one, so crates of one level do
/// not know each other.
const LEVELS: &[(&str, u8)] = &[
    ("berth-types", 0),
    ("berth-store", 1),
    ("berth-plugin-http", 1),
    // The only crates that speak to the kernel's network; and the allocator, which must not.
    ("berth-netlink", 2),
    ("berth-nft", 2),
    ("berth-ipam", 2),
    ("berth-core", 3),
    ("berth-volume-core", 3),
    ("berth-dns", 3),
    ("berth-overlay", 4),
    // Adapters: one protocol each.
    ("berth-cni", 5),
    ("berth-docker", 5),
    ("berth-volume-docker", 5),
    // Binaries.
    ("berth", 6),
    ("berthd", 6),
    ("berth-integration", 7),
    // Needs no crate of berth, and none needs it.
    ("xtask", 0),
];

/// A crate of the workspace.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

/// A dependency, of any kind: a test that reaches upwards is an arrow upwards too.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    name: String,
    /// There for crates of the workspace only.
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Checks the workspace that this was started in.
pub(crate) fn check_workspace() -> Result<()> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]))
        .or_else(|_| output(cargo(&["metadata", "--format-version", "1", "--no-deps"])))?;
    let metadata: Metadata = serde_json::from_str(&text)?;
    let faults = faults(&metadata.packages);
    if !faults.is_empty() {
        bail!("layers:\n  {}", faults.join("\n  "));
    }
    say(&format!("== layers: {} crates, all arrows point down", metadata.packages.len()));
    Ok(())
}

/// Says which arrows do not point down.
fn faults(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(faults_of).collect()
}

fn faults_of(package: &Package) -> Vec<String> {
    let Some(own) = level(&package.name) else {
        return vec![format!("`{}` has no level: give it one in xtask/src/layers.rs", package.name)];
    };
    let used = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    used.filter_map(|dependency| match level(&dependency.name) {
        Some(below) if below < own => None,
        Some(other) => Some(format!(
            "`{}` (level {own}) must not depend on `{}` (level {other})",
            package.name, dependency.name
        )),
        // Reported for the crate itself.
        None => None,
    })
    .collect()
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency { name: (*name).to_owned(), path: Some("/x".to_owned()) };
        Package { name: name.to_owned(), dependencies: dependencies.iter().map(dependency).collect() }
    }

    #[test]
    fn arrows_down_are_fine() {
        let packages = [
            package("berth-store", &["berth-types"]),
            package(
                "berth-core",
                &["berth-types", "berth-store", "berth-ipam", "berth-nft", "berth-netlink"],
            ),
            package("berth", &["berth-cni", "berth-core"]),
            package("berth-integration", &["berth-volume-core"]),
        ];
        assert_eq!(faults(&packages), Vec::<String>::new());
    }

    #[test]
    fn a_planted_arrow_up_is_found() {
        let found = faults(&[package("berth-netlink", &["berth-types", "berth-core"])]);
        assert_eq!(found, ["`berth-netlink` (level 2) must not depend on `berth-core` (level 3)"]);
    }

    #[test]
    fn neighbours_do_not_know_each_other() {
        assert_eq!(faults(&[package("berth-ipam", &["berth-netlink"])]).len(), 1);
        assert_eq!(faults(&[package("berth-nft", &["berth-netlink"])]).len(), 1);
        assert_eq!(faults(&[package("berth-core", &["berth-volume-core"])]).len(), 1);
    }

    #[test]
    fn xtask_needs_no_crate_of_berth() {
        assert_eq!(faults(&[package("xtask", &["berth-types"])]).len(), 1);
    }

    #[test]
    fn a_crate_without_a_level_is_refused() {
        assert!(faults(&[package("berth-new", &[])])[0].contains("has no level"));
    }

    #[test]
    fn a_foreign_crate_of_the_same_name_is_no_arrow() {
        let mut package = package("berth-types", &["berth"]);
        package.dependencies[0].path = None;
        assert_eq!(faults(&[package]), Vec::<String>::new());
    }
}
