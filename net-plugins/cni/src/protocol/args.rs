//! `CNI_ARGS`: `K=V;K=V`.

use super::error::{CniError, Code, shortened};

/// The arguments a plugin knows, out of `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(Vec<(String, String)>);

impl CniArgs {
    /// Parses `text`. Keys are matched exactly. Unknown ones are an error unless `IgnoreUnknown` is `1` or `true`,
    /// which most runtimes send; it may stand anywhere in the list.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]: a pair without exactly one `=`, an unknown key, a bad `IgnoreUnknown`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, CniError> {
        let mut args = Vec::new();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| invalid(format!("ARGS: invalid pair {:?}", shortened(pair, 60))))?;
            if key == "IgnoreUnknown" {
                ignore_unknown = boolean(pair, value)?;
            } else if known.contains(&key) {
                args.push((key.to_owned(), value.to_owned()));
            } else {
                unknown.push(pair);
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            let shown = shortened(&format!("{unknown:?}"), 200);
            return Err(invalid(format!("ARGS: unknown args {shown}")));
        }
        Ok(Self(args))
    }

    /// The value of `key`, the last where it is given more than once.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

fn boolean(pair: &str, value: &str) -> Result<bool, CniError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(format!(
            "ARGS: error parsing value of pair {:?}: not a boolean",
            shortened(pair, 60)
        ))),
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, msg)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_keys_are_read() {
        for (text, ip, mac) in [
            ("", None, None),
            ("IP=10.0.0.7", Some("10.0.0.7"), None),
            ("IP=10.0.0.7;MAC=c2:b0:57:49:47:f2", Some("10.0.0.7"), Some("c2:b0:57:49:47:f2")),
            ("IP=a;IP=b", Some("b"), None),
            ("IP=", Some(""), None),
            ("K8S_POD_NAME=p;IP=a;IgnoreUnknown=1", Some("a"), None),
            ("IgnoreUnknown=True;X=1", None, None),
            ("IgnoreUnknown=0;MAC=m", None, Some("m")),
        ] {
            let args = CniArgs::parse(text, &["IP", "MAC"]).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((args.get("IP"), args.get("MAC")), (ip, mac), "{text}");
        }
    }

    #[test]
    fn bad_lists_are_refused() {
        for (text, msg) in [
            ("IP", r#"ARGS: invalid pair "IP""#),
            ("IP=a=b", r#"ARGS: invalid pair "IP=a=b""#),
            ("IP=a;", r#"ARGS: invalid pair """#),
            ("ip=a", r#"ARGS: unknown args ["ip=a"]"#),
            ("X=1;IP=a;Y=2", r#"ARGS: unknown args ["X=1", "Y=2"]"#),
            ("X=1;IgnoreUnknown=false", r#"ARGS: unknown args ["X=1"]"#),
            ("IgnoreUnknown=yes", r#"ARGS: error parsing value of pair "IgnoreUnknown=yes": not a boolean"#),
            // Ignoring unknown keys does not excuse a malformed pair.
            ("IgnoreUnknown=1;X", r#"ARGS: invalid pair "X""#),
        ] {
            let error = CniArgs::parse(text, &["IP"]).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (Code::InvalidEnvironment, msg), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_in_bounded_words(text in any::<String>()) {
            if let Err(error) = CniArgs::parse(&text, &["IP"]) {
                prop_assert!(error.msg.len() < 4000);
            }
        }
    }
}
