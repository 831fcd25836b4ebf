//! `docs/benchmarks.md`: a section for each subject, written by its own run.

use std::fs;

use anyhow::{Context as _, Result};

const PAGE: &str = "docs/benchmarks.md";
const HEAD: &str = "# Benchmarks\n\n\
    Each section is written by its own run of `cargo xtask bench`, in private hosts of one machine: medians, and always side by \
    side with what would run otherwise.\n";

/// Puts `text` under the heading `title`, in place of what was there, and leaves the other sections as they are.
pub(crate) fn write_section(title: &str, text: &str) -> Result<()> {
    // A page that is missing has no other sections.
    let page = fs::read_to_string(PAGE).unwrap_or_default();
    fs::write(PAGE, with_section(&page, title, text)).with_context(|| format!("failed to write {PAGE}"))
}

fn with_section(page: &str, title: &str, text: &str) -> String {
    let mut sections: Vec<(&str, String)> = page
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .map(|(title, text)| (title, text.trim().to_owned()))
        .collect();
    let text = text.trim().to_owned();
    match sections.iter_mut().find(|(found, _)| *found == title) {
        Some((_, old)) => *old = text,
        None => sections.push((title, text)),
    }
    let written = sections.iter().map(|(title, text)| format!("\n## {title}\n\n{text}\n"));
    HEAD.to_owned() + &written.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let one = with_section("", "CNI", "one\n");
        let two = with_section(&one, "Docker", "two");
        assert!(two.ends_with("\n## CNI\n\none\n\n## Docker\n\ntwo\n"), "{two}");
        let three = with_section(&two, "CNI", "three");
        assert!(three.ends_with("\n## CNI\n\nthree\n\n## Docker\n\ntwo\n"), "{three}");
        assert_eq!(with_section(&three, "Docker", "two"), three);
    }
}
