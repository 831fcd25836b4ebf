//! What commands show of volumes. Names of fields are promised to programs.

use berth_types::VolumeName;
use berth_volume_core::{Options, Size, Usage, VolumeInfo, VolumeUser, rfc3339};
use serde::Serialize;

/// A volume.
#[derive(Debug, Serialize)]
pub(super) struct VolumeView {
    name: VolumeName,
    kind: &'static str,
    options: Options,
    created: String,
    /// Where its data is while it is mounted, if it is of a kind that is.
    data: String,
    users: Vec<UserView>,
    /// Other options that somebody asked for since and did not get.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<String>,
    #[serde(flatten)]
    usage: Option<UsageView>,
}

/// How full a volume is.
#[derive(Debug, Serialize)]
pub(super) struct UsageView {
    /// `null` for a kind that is not mounted.
    mounted: Option<bool>,
    /// Bytes; `null` where there is no limit of its own.
    size: Option<u64>,
    /// Bytes; `null` where it is not known.
    used: Option<u64>,
    /// The directory was not counted to its end.
    used_is_at_least: bool,
}

/// A user of a volume.
#[derive(Debug, Serialize)]
pub(super) struct UserView {
    source: String,
    id: String,
    count: u32,
    seconds: u64,
}

impl UserView {
    fn new(user: &VolumeUser) -> Self {
        let VolumeUser { source, id, count, age } = user;
        Self { source: source.clone(), id: id.clone(), count: *count, seconds: age.as_secs() }
    }
}

impl UsageView {
    fn new(usage: &Usage) -> Self {
        let Usage { space, at_least, mounted } = usage;
        Self { mounted: *mounted, size: space.size, used: space.used, used_is_at_least: *at_least }
    }
}

impl VolumeView {
    pub(super) fn new(info: VolumeInfo, usage: Option<&Usage>) -> Self {
        let VolumeInfo { name, kind, options, created_ms, data, always_there: _, users, differs } = info;
        Self {
            name,
            kind,
            options,
            created: rfc3339(created_ms),
            data: data.display().to_string(),
            users: users.iter().map(UserView::new).collect(),
            differs,
            usage: usage.map(UsageView::new),
        }
    }

    pub(super) const HEAD: &[&str] = &["VOLUME", "KIND", "OPTIONS", "USERS", "CREATED"];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            shortened(&self.name),
            self.kind.to_owned(),
            self.options(),
            self.users.len().to_string(),
            self.created.clone(),
        ]
    }

    pub(super) const DF_HEAD: &[&str] = &["VOLUME", "KIND", "SIZE", "USED", "USERS", "DATA"];

    pub(super) fn df_row(&self) -> Vec<String> {
        let (size, used) = self.sizes();
        vec![
            shortened(&self.name),
            self.kind.to_owned(),
            size,
            used,
            self.users.len().to_string(),
            self.data.clone(),
        ]
    }

    /// Label and value, one a line.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let (size, used) = self.sizes();
        let mounted = self.usage.as_ref().and_then(|usage| usage.mounted);
        let mut facts = vec![
            ("volume", self.name.to_string()),
            ("kind", self.kind.to_owned()),
            ("options", self.options()),
            ("created", self.created.clone()),
            ("data", self.data.clone()),
        ];
        if let Some(mounted) = mounted {
            facts.push(("mounted", if mounted { "yes" } else { "no" }.to_owned()));
        }
        facts.extend([("size", size), ("used", used)]);
        if let Some(differs) = &self.differs {
            facts.push(("differs", format!("somebody asked for it {differs}")));
        }
        for user in &self.users {
            let UserView { source, id, count, seconds } = user;
            let times = if *count == 1 { String::new() } else { format!(", {count} times") };
            facts.push(("user", format!("{source} {id}{times}, for {seconds} s")));
        }
        facts
    }

    fn options(&self) -> String {
        let pairs: Vec<String> = self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if pairs.is_empty() { "-".to_owned() } else { pairs.join(" ") }
    }

    fn sizes(&self) -> (String, String) {
        let Some(usage) = &self.usage else { return ("-".to_owned(), "-".to_owned()) };
        let text = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string());
        let at_least = if usage.used_is_at_least { "more than " } else { "" };
        (text(usage.size), format!("{at_least}{}", text(usage.used)))
    }
}

/// A made-up name as people read it, the first of its 64 digits.
fn shortened(name: &VolumeName) -> String {
    let name = name.as_str();
    let made_up = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if made_up { format!("{}…", name.get(..12).unwrap_or(name)) } else { name.to_owned() }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use std::time::Duration;

    pub(in super::super) fn view() -> VolumeView {
        let info = VolumeInfo {
            name: "mysql_data".parse().unwrap(),
            kind: "sized",
            options: [("size".to_owned(), "1G".to_owned())].into(),
            created_ms: 1_700_000_000_000,
            data: "/var/lib/berth/volumes/mysql_data/fs/_data".into(),
            always_there: false,
            users: vec![VolumeUser {
                source: "docker".to_owned(),
                id: "0f".repeat(32),
                count: 2,
                age: Duration::from_secs(90),
            }],
            differs: Some("with other options: size is 1G, not 2G".to_owned()),
        };
        let space = berth_volume_core::Space { size: Some(1 << 30), used: Some(3 << 20) };
        VolumeView::new(info, Some(&Usage { space, at_least: false, mounted: Some(true) }))
    }
}
