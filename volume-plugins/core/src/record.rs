//! What is kept of a volume, in the payload of its row.

use std::path::PathBuf;

use berth_store::VolumeRow;
use berth_types::VolumeName;
use serde::{Deserialize, Serialize};

use crate::error::VolumeError;
use crate::options::{Options, Spec, parse_options};

/// The version of [`Record`] that this berth writes.
const VERSION: u32 = 1;

/// What is kept of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) v: u32,
    /// As given; what the volume is follows from them.
    pub(crate) options: Options,
    /// The device's path without links, as it was when the volume was made. A link that appears in it later is not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolved: Option<PathBuf>,
    /// The image that berth made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<ImageIdentity>,
    /// Other options that somebody asked for since, and did not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<Options>,
    /// The name it is just being given; after a crash its directory has either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renaming_to: Option<VolumeName>,
}

/// By what berth knows its image again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageIdentity {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The file system's identity.
    pub(crate) uuid: String,
    /// The size it is just being given; after a crash it may have either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) growing_to: Option<u64>,
}

impl Record {
    /// Of a volume that is about to be made.
    pub(crate) fn new(options: Options) -> Self {
        Self { v: VERSION, options, resolved: None, image: None, asked: None, renaming_to: None }
    }

    /// Reads it from a row.
    pub(crate) fn of(row: &VolumeRow) -> Result<Self, VolumeError> {
        let failed = |why: String| VolumeError::Record { name: row.name.clone(), why };
        let record: Self = serde_json::from_str(&row.payload).map_err(|err| failed(err.to_string()))?;
        if record.v > VERSION {
            return Err(failed(format!("it is of version {}, this berth knows up to {VERSION}", record.v)));
        }
        Ok(record)
    }

    /// What the volume is.
    pub(crate) fn spec(&self, name: &VolumeName) -> Result<Spec, VolumeError> {
        let failed =
            |err: crate::OptionError| VolumeError::Record { name: name.clone(), why: err.to_string() };
        parse_options(&self.options).map_err(failed)
    }

    /// As it is stored.
    pub(crate) fn to_payload(&self) -> String {
        // Maps of strings and numbers: nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How `asked` differs from `have`, in words: ` with other options: size is 1G, not 2G`; empty if it does not.
pub(crate) fn differences(have: &Options, asked: &Options) -> String {
    let keys: std::collections::BTreeSet<&String> = have.keys().chain(asked.keys()).collect();
    let words: Vec<String> = keys
        .into_iter()
        .filter_map(|key| match (have.get(key), asked.get(key)) {
            (Some(have), Some(asked)) if have == asked => None,
            (Some(have), Some(asked)) => Some(format!("{key} is {have}, not {asked}")),
            (Some(have), None) => Some(format!("{key} is {have}, not unset")),
            (None, Some(asked)) => Some(format!("{key} is unset, not {asked}")),
            (None, None) => None,
        })
        .collect();
    if words.is_empty() { String::new() } else { format!(" with other options: {}", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let text = include_str!("../tests/fixtures/record-v1.json");
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.options, options(&[("size", "1G")]));
        assert_eq!(record.image.as_ref().unwrap().size, 1 << 30);
        let again: Record = serde_json::from_str(&record.to_payload()).unwrap();
        assert_eq!(again, record);
    }

    #[test]
    fn differences_are_told_key_by_key() {
        let have = options(&[("size", "1G"), ("fs", "xfs")]);
        assert_eq!(differences(&have, &have), "");
        assert_eq!(
            differences(&have, &options(&[("size", "2G"), ("uid", "5")])),
            " with other options: fs is xfs, not unset, size is 1G, not 2G, uid is unset, not 5"
        );
    }
}
