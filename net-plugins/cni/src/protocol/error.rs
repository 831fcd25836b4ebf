//! The one error of the protocol, and the table of its codes.

use serde::Serialize;

use super::version::CniVersion;

/// Why a call failed, by number.
///
/// | code | name | meaning |
/// |---|---|---|
/// | 1 | `IncompatibleVersion` | the configuration's version is not spoken, or too old for the verb |
/// | 2 | `UnsupportedField` | a field's value is valid and not supported; `details` names both |
/// | 3 | `UnknownContainer` | the container does not exist: the runtime need not call DEL |
/// | 4 | `InvalidEnvironment` | a CNI variable is missing or wrong; `msg` names it |
/// | 5 | `Io` | reading the request or writing the answer failed |
/// | 6 | `Decoding` | the configuration is no JSON of the protocol's form |
/// | 7 | `InvalidConfig` | the configuration contradicts itself or the specification |
/// | 8 | `InvalidNetns` | the sandbox is the host's own namespace, or no namespace |
/// | 11 | `TryAgainLater` | a passing condition, for instance a lock held too long |
/// | 50 | `NotAvailable` | STATUS: no ADD can succeed now |
/// | 51 | `LimitedConnectivity` | STATUS: as 50, and existing containers may lack connectivity |
/// | 100 | `PortTaken` | a host port is published by someone else |
/// | 101 | `AddressTaken` | a requested address is leased or reserved |
/// | 102 | `PoolExhausted` | no address is left |
/// | 103 | `InterfaceExists` | the sandbox has an interface of that name already, or the attachment exists |
/// | 104 | `DeviceConflict` | a device of the host has the name, and is not what the network needs |
/// | 105 | `SubnetConflict` | a subnet overlaps the host's or another network's |
/// | 106 | `SandboxChanged` | the path leads to another namespace than at ADD |
/// | 107 | `Kernel` | the kernel refused a change; `details` has the call and the errno |
/// | 108 | `State` | berth's records cannot be read or written |
/// | 109 | `CheckFailed` | CHECK: something the attachment owns is missing or changed |
/// | 110 | `PluginMissing` | a plugin to delegate to is in no directory of `CNI_PATH` |
/// | 111 | `PluginBroken` | a delegated plugin broke the protocol: no answer, no JSON, killed |
/// | 112 | `Permission` | the process lacks a capability |
/// | 113 | `CleanupIncomplete` | DEL or GC removed what it could; `details` lists what is left |
/// | 114 | `Names` | a name was asked for and cannot be answered: the DNS server cannot be reached or started |
/// | 999 | `Internal` | anything else |
///
/// Numbers are stable: runtimes and people match on them. New ones are added at the end of berth's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table above documents all of them in one place")]
pub enum Code {
    IncompatibleVersion,
    UnsupportedField,
    UnknownContainer,
    InvalidEnvironment,
    Io,
    Decoding,
    InvalidConfig,
    InvalidNetns,
    TryAgainLater,
    NotAvailable,
    LimitedConnectivity,
    PortTaken,
    AddressTaken,
    PoolExhausted,
    InterfaceExists,
    DeviceConflict,
    SubnetConflict,
    SandboxChanged,
    Kernel,
    State,
    CheckFailed,
    PluginMissing,
    PluginBroken,
    Permission,
    CleanupIncomplete,
    Names,
    Internal,
    /// The code of a delegated plugin, passed on as it is.
    Foreign(u32),
}

impl Code {
    /// Every code with a meaning of its own.
    pub const ALL: &'static [Self] = &[
        Self::IncompatibleVersion,
        Self::UnsupportedField,
        Self::UnknownContainer,
        Self::InvalidEnvironment,
        Self::Io,
        Self::Decoding,
        Self::InvalidConfig,
        Self::InvalidNetns,
        Self::TryAgainLater,
        Self::NotAvailable,
        Self::LimitedConnectivity,
        Self::PortTaken,
        Self::AddressTaken,
        Self::PoolExhausted,
        Self::InterfaceExists,
        Self::DeviceConflict,
        Self::SubnetConflict,
        Self::SandboxChanged,
        Self::Kernel,
        Self::State,
        Self::CheckFailed,
        Self::PluginMissing,
        Self::PluginBroken,
        Self::Permission,
        Self::CleanupIncomplete,
        Self::Names,
        Self::Internal,
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::PortTaken => 100,
            Self::AddressTaken => 101,
            Self::PoolExhausted => 102,
            Self::InterfaceExists => 103,
            Self::DeviceConflict => 104,
            Self::SubnetConflict => 105,
            Self::SandboxChanged => 106,
            Self::Kernel => 107,
            Self::State => 108,
            Self::CheckFailed => 109,
            Self::PluginMissing => 110,
            Self::PluginBroken => 111,
            Self::Permission => 112,
            Self::CleanupIncomplete => 113,
            Self::Names => 114,
            Self::Internal => 999,
            Self::Foreign(number) => number,
        }
    }
}

/// A failed call, as the protocol carries it.
///
/// `msg` is one line that names the object; `details` is for whoever repairs it. A runtime that uses libcni throws
/// standard error away when a call fails with JSON on standard output, so all diagnosis belongs in here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct CniError {
    /// Why, by number.
    pub code: Code,
    /// What went wrong, in one line.
    pub msg: String,
    /// Anything longer; empty where there is nothing to add.
    pub details: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireError<'a> {
    cni_version: &'static str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

impl CniError {
    /// An error without details. Control characters of hostile input are shown as spaces.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into().replace(char::is_control, " "), details: String::new() }
    }

    /// The same with `details`.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// An error whose details are the causes of `error`, outermost first.
    pub fn from_chain(code: Code, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        // Errors give their hint on a second line.
        let text = error.to_string();
        let (msg, hint) = text.split_once('\n').unwrap_or((&text, ""));
        let details = [causes.join(": "), hint.to_owned()];
        let details: Vec<String> = details.into_iter().filter(|part| !part.is_empty()).collect();
        Self::new(code, msg).with_details(details.join("\n"))
    }

    /// One line of JSON for standard output.
    ///
    /// `version` is the request's, or the newest where the request's is not known or not spoken: the specification
    /// wants "the version in use by the plugin". libcni ignores the field.
    pub fn to_json(&self, version: CniVersion) -> Vec<u8> {
        let Self { code, msg, details } = self;
        let wire = WireError { cni_version: version.as_str(), code: code.number(), msg, details };
        let mut line = serde_json::to_vec(&wire).expect("numbers and texts always serialise");
        line.push(b'\n');
        line
    }

    /// The same error with words that a runtime does not take for success.
    ///
    /// containerd's go-cni swallows a failed DEL whose text has `not found`, or, with an empty netns, `no such file
    /// or directory`. An error of berth's own DEL is always a real one, so it must be seen. The words a delegated
    /// plugin chose ([`Code::Foreign`]) are its own business and stay.
    #[must_use]
    pub fn reworded_for_del(self) -> Self {
        if matches!(self.code, Code::Foreign(_)) || del_text_defect(&self.to_string()).is_none() {
            return self;
        }
        let Self { code, msg, details } = self;
        Self { code, msg: reworded(&msg), details: reworded(&details) }
    }
}

/// Phrases that make a runtime take a failed DEL for a successful one, and what berth says instead.
const SWALLOWED_IN_DEL: &[(&str, &str)] =
    &[("not found", "missing"), ("no such file or directory", "path is missing (ENOENT)")];

/// The phrase in `text` that would make a runtime swallow a failed DEL, in any case of letters.
///
/// Tests of every plugin hold their DEL errors against it; see [`CniError::reworded_for_del`].
pub fn del_text_defect(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    SWALLOWED_IN_DEL.iter().map(|(phrase, _)| *phrase).find(|phrase| lower.contains(phrase))
}

fn reworded(text: &str) -> String {
    let mut out = text.to_owned();
    for (phrase, instead) in SWALLOWED_IN_DEL {
        // ASCII lower-casing keeps every byte's place, so offsets in the copy are offsets in the text.
        while let Some(start) = out.to_ascii_lowercase().find(phrase) {
            out.replace_range(start..start + phrase.len(), instead);
        }
    }
    out
}

/// At most `limit` characters of `text`, with `…` where it was cut: hostile input is not echoed whole.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_distinct_and_listed_in_order() {
        let numbers: Vec<u32> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(!numbers.contains(&0), "0 is reserved by the specification");
    }

    #[test]
    fn every_code_is_in_the_table_of_the_documentation() {
        let source = include_str!("error.rs");
        for code in Code::ALL {
            let row = format!("/// | {} | `{code:?}` |", code.number());
            assert!(source.contains(&row), "no row {row:?}");
        }
    }

    #[test]
    fn json_carries_the_version_and_leaves_empty_details_out() {
        let error = CniError::new(Code::PortTaken, "port 8080/tcp is published by c1");
        let text = |error: &CniError| String::from_utf8(error.to_json(CniVersion::V0_4_0)).unwrap();
        insta::assert_snapshot!(text(&error), @r#"{"cniVersion":"0.4.0","code":100,"msg":"port 8080/tcp is published by c1"}"#);
        insta::assert_snapshot!(text(&error.with_details("a \"b\"\nc")), @r#"{"cniVersion":"0.4.0","code":100,"msg":"port 8080/tcp is published by c1","details":"a \"b\"\nc"}"#);
    }

    #[test]
    fn a_chain_of_causes_becomes_details() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to open records")]
        struct Outer(#[source] std::io::Error);
        let error = CniError::from_chain(Code::State, &Outer(std::io::Error::other("disk is gone")));
        assert_eq!(error.to_string(), "failed to open records; disk is gone");
    }

    #[test]
    fn a_hint_on_a_second_line_becomes_details() {
        #[derive(Debug, thiserror::Error)]
        #[error("host port 80 is taken\npublish on another")]
        struct Hinted;
        let CniError { msg, details, .. } = CniError::from_chain(Code::PortTaken, &Hinted);
        assert_eq!((msg.as_str(), details.as_str()), ("host port 80 is taken", "publish on another"));
    }

    #[test]
    fn words_that_hide_a_failed_del_are_found_and_replaced() {
        for (text, defect) in [
            ("lease of c1 Not Found", Some("not found")),
            ("open /x: No such file or directory (os error 2)", Some("no such file or directory")),
            ("lease of c1 is missing", None),
            ("failed to find plugin \"x\" in path [/a]", None),
        ] {
            assert_eq!(del_text_defect(text), defect, "{text}");
            let error = CniError::new(Code::State, text).with_details(text).reworded_for_del();
            assert_eq!(del_text_defect(&error.to_string()), None, "{error}");
        }
        let foreign = CniError::new(Code::Foreign(3), "container not found");
        assert_eq!(foreign.clone().reworded_for_del(), foreign);
    }

    proptest! {
        #[test]
        fn rewording_always_ends_without_a_defect(text in "(not found|no such file or directory|NOT |FOUND|ü|.){0,12}") {
            let error = CniError::new(Code::State, text.clone()).with_details(text).reworded_for_del();
            prop_assert_eq!(del_text_defect(&error.msg), None);
            prop_assert_eq!(del_text_defect(&error.details), None);
        }

        #[test]
        fn shortening_never_cuts_a_character(text in any::<String>(), limit in 0_usize..20) {
            prop_assert!(shortened(&text, limit).chars().count() <= limit + 1);
        }
    }
}
