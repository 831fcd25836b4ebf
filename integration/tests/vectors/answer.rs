//! Whether an answer is the recorded one, but for what may differ.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::recorded::Answer;

/// What the placeholders of the recording stand for in this run.
#[derive(Debug, Default)]
pub(crate) struct Meaning {
    /// `NS0`, `NS1`: the paths of the containers. `VETH0`, …: the names seen first in their place.
    names: BTreeMap<String, String>,
}

/// Keys that a result may have although the recorded one has not: all are of specification 1.1.0 or earlier and say more, not
/// something else.
const MORE: [&str; 5] = ["mtu", "socketPath", "pciID", "valid", "cniVersion"];

/// Error codes that the reference plugins use as the specification defines them: berth's must be the same. 999 is their word
/// for everything else, and there berth may be more precise.
const DEFINED: [u64; 6] = [1, 4, 6, 7, 50, 51];

impl Meaning {
    pub(crate) fn new(containers: &[String]) -> Self {
        let names = containers.iter().enumerate().map(|(index, path)| (format!("NS{index}"), path.clone()));
        Self { names: names.collect() }
    }

    /// Says what is wrong with `actual`, the exit status and output of a call, if anything is.
    pub(crate) fn compare(
        &mut self,
        recorded: &Answer,
        exit: Option<i32>,
        actual: &Value,
    ) -> Result<(), String> {
        let failed = recorded.exit != 0;
        if exit != Some(recorded.exit) {
            return Err(format!("exit {exit:?}, recorded {}", recorded.exit));
        }
        if failed {
            compare_error(&recorded.out, actual)
        } else {
            self.compare_value("", &recorded.out, actual)
        }
    }

    fn compare_value(&mut self, at: &str, recorded: &Value, actual: &Value) -> Result<(), String> {
        match (recorded, actual) {
            (Value::String(recorded), Value::String(actual)) => self.compare_text(at, recorded, actual),
            (Value::Array(recorded), Value::Array(actual)) if recorded.len() == actual.len() => {
                let mut pairs = recorded.iter().zip(actual).enumerate();
                pairs.try_for_each(|(index, (recorded, actual))| {
                    self.compare_value(&format!("{at}[{index}]"), recorded, actual)
                })
            }
            (Value::Object(recorded), Value::Object(actual)) => {
                let keys: std::collections::BTreeSet<_> = recorded.keys().chain(actual.keys()).collect();
                keys.into_iter().try_for_each(|key| match (recorded.get(key), actual.get(key)) {
                    (Some(recorded), Some(actual)) => {
                        self.compare_value(&format!("{at}.{key}"), recorded, actual)
                    }
                    (None, Some(_)) if MORE.contains(&key.as_str()) => Ok(()),
                    (None, Some(extra)) | (Some(extra), None) if is_empty(extra) => Ok(()),
                    (None, Some(extra)) => Err(format!("`{at}.{key}` is {extra} and was not recorded")),
                    (Some(lost), _) => Err(format!("`{at}.{key}` is missing, recorded {lost}")),
                    (None, None) => unreachable!("the key is of one of the two"),
                })
            }
            _ if recorded == actual => Ok(()),
            _ => Err(format!("`{at}` is {actual}, recorded {recorded}")),
        }
    }

    fn compare_text(&mut self, at: &str, recorded: &str, actual: &str) -> Result<(), String> {
        let placeholder = recorded.starts_with("VETH") || recorded.starts_with("NS");
        let same = match recorded {
            "MAC" => is_mac(actual),
            _ if placeholder => {
                self.names.entry(recorded.to_owned()).or_insert_with(|| actual.to_owned()) == actual
            }
            _ => recorded == actual,
        };
        if same { Ok(()) } else { Err(format!("`{at}` is `{actual}`, recorded `{recorded}`")) }
    }
}

/// The words are berth's own. `details` and `cniVersion` are free.
fn compare_error(recorded: &Value, actual: &Value) -> Result<(), String> {
    let (code, old) = (actual["code"].as_u64().unwrap_or(0), recorded["code"].as_u64().unwrap_or(0));
    if code == 0 || actual["msg"].as_str().unwrap_or("").is_empty() {
        return Err(format!("no CNI error: {actual}"));
    }
    if DEFINED.contains(&old) && code != old {
        return Err(format!("error code {code}, recorded {old}: {actual}"));
    }
    Ok(())
}

/// `"dns": {}` and no `dns` are the same.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}
