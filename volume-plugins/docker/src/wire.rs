//! The messages. Unknown fields are ignored; what may be missing or `null` is said field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `Create`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Create {
    pub(crate) name: String,
    /// `null` where there are none.
    #[serde(default)]
    pub(crate) opts: Option<BTreeMap<String, String>>,
}

/// `Get`, `Path`, `Remove`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Named {
    pub(crate) name: String,
}

/// `Mount`, `Unmount`.
#[derive(Debug, Deserialize)]
pub(crate) struct Used {
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "ID", default)]
    pub(crate) id: String,
}

/// The answer to `Capabilities`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Capabilities {
    pub(crate) capabilities: Scope,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Scope {
    pub(crate) scope: &'static str,
}

/// The answer to `Mount` and `Path`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mountpoint {
    /// Empty where it is not mounted.
    pub(crate) mountpoint: String,
    pub(crate) err: &'static str,
}

/// The answer to `Get`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Got {
    pub(crate) volume: Volume,
    pub(crate) err: &'static str,
}

/// The answer to `List`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) volumes: Vec<Volume>,
    pub(crate) err: &'static str,
}

/// The answer of what only succeeds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Done {
    pub(crate) err: &'static str,
}

/// A volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Empty where it is not mounted.
    pub(crate) mountpoint: String,
    /// By RFC 3339, or left out: anything else is an error to dockerd.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) created_at: String,
    /// Shown by `docker volume inspect` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) status: BTreeMap<&'static str, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_the_engines_write_them() {
        let create: Create = serde_json::from_str(r#"{"Name":"v","Opts":null}"#).unwrap();
        assert!(create.opts.is_none());
        let create: Create = serde_json::from_str(r#"{"Name":"v","Opts":{"size":"10G"},"Other":1}"#).unwrap();
        assert_eq!(create.opts.unwrap()["size"], "10G");
        assert!(serde_json::from_str::<Create>(r#"{"Name":"v"}"#).unwrap().opts.is_none());
        let used: Used = serde_json::from_str(r#"{"Name":"v","ID":"2f73349c"}"#).unwrap();
        assert_eq!(used.id, "2f73349c");
        assert!(serde_json::from_str::<Create>("{}").is_err());
        assert!(serde_json::from_str::<Create>(r#"{"Name":"v","Opts":{"size":5}}"#).is_err());
    }

    #[test]
    fn answers_have_the_words_that_the_engines_read() {
        let volume = Volume {
            name: "v".to_owned(),
            mountpoint: "/x/_data".to_owned(),
            created_at: "2026-01-02T03:04:05Z".to_owned(),
            status: BTreeMap::from([("kind", Value::from("directory"))]),
        };
        assert_eq!(
            serde_json::to_string(&Got { volume, err: "" }).unwrap(),
            r#"{"Volume":{"Name":"v","Mountpoint":"/x/_data","CreatedAt":"2026-01-02T03:04:05Z","Status":{"kind":"directory"}},"Err":""}"#
        );
        let scope = Capabilities { capabilities: Scope { scope: "local" } };
        assert_eq!(serde_json::to_string(&scope).unwrap(), r#"{"Capabilities":{"Scope":"local"}}"#);
    }
}
