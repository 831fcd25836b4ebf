//! `resolv.conf(5)`, as host-local reads it for its result's `dns`.

use std::io;
use std::path::{Path, PathBuf};

use berth_types::Dns;

/// The file that `resolvConf` names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read resolvConf `{path}`")]
pub struct ResolvConfError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads the file. When an address is given, not when it is taken back: a missing file must not keep one.
pub fn read_resolv_conf(path: &Path) -> Result<Dns, ResolvConfError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse_resolv_conf(&String::from_utf8_lossy(&bytes))),
        Err(source) => Err(ResolvConfError { path: path.to_owned(), source }),
    }
}

/// Lines that begin with `#` or `;`, and lines with a keyword and nothing else, say nothing. Of several `domain` lines
/// the last one counts; the other keywords add up.
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let keyword = words.next().unwrap_or_default();
        match keyword.as_str() {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or(dns.domain),
            "search" => dns.search.extend(words),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_add_up_and_comments_say_nothing() {
        let text = "# a\n; b\n\nnameserver 9.9.9.9\nnameserver  fe80::1%eth0 # later words are not read\nnameserver\n\
                    search a.example b.example\nsearch c.example\noptions ndots:3 rotate\ndomain d.example\nsortlist x\n";
        let dns = parse_resolv_conf(text);
        assert_eq!(dns.nameservers, ["9.9.9.9", "fe80::1%eth0"]);
        assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
        assert_eq!(dns.options, ["ndots:3", "rotate"]);
        assert_eq!(dns.domain, "d.example");
        assert!(parse_resolv_conf("").is_empty());
    }

    #[test]
    fn a_missing_file_is_named() {
        let err = read_resolv_conf(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(err.to_string(), "failed to read resolvConf `/nonexistent/resolv.conf`");
    }
}
