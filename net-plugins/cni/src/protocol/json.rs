//! Standard input to a JSON object: bounded, UTF-8, not too deep.

use std::io::Read;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{CniError, Code, shortened};

/// The largest configuration, bytes. A GC list of 9,000 attachments fits.
pub const MAX_CONFIG: usize = 1 << 20;

/// Reads all of `input`, at most [`MAX_CONFIG`] bytes.
///
/// # Errors
/// [`Code::Decoding`] where there is more, [`Code::Io`] where reading fails or takes too long. Not more than one byte
/// past the limit is ever read.
pub fn read_config(input: &mut dyn Read) -> Result<Vec<u8>, CniError> {
    // libcni's configurations are a few hundred bytes: one allocation, one read and the read that sees the end.
    let mut bytes = Vec::with_capacity(4096);
    let limit = u64::try_from(MAX_CONFIG).unwrap_or(u64::MAX);
    match input.take(limit + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > MAX_CONFIG => {
            Err(decoding("network configuration on stdin is larger than 1 MiB".to_owned()))
        }
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(CniError::new(
            Code::Io,
            format!("network configuration on stdin did not end in time; {} bytes came", bytes.len()),
        )),
        Err(error) => Err(CniError::new(Code::Io, format!("error reading from stdin: {error}"))),
    }
}

/// Parses `bytes` as one JSON object. `null` is an empty one; of a key given twice, the last counts.
///
/// # Errors
/// [`Code::Decoding`], with the place: not UTF-8, not JSON, nested deeper than 128, not an object.
pub fn parse_object(bytes: &[u8], what: &str) -> Result<Map<String, Value>, CniError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| decoding(format!("{what} is not UTF-8 at byte {}", error.valid_up_to())))?;
    if text.trim_ascii().is_empty() {
        return Err(decoding(format!("{what} is empty")));
    }
    // Read as an object at once, a megabyte of something else is refused at its first byte.
    match serde_json::from_str::<Option<Map<String, Value>>>(text) {
        Ok(object) => Ok(object.unwrap_or_default()),
        Err(error) if error.is_data() => Err(decoding(format!("{what} is not a JSON object: {error}"))),
        Err(error) => {
            Err(decoding(format!("cannot decode {what}: {error}")).with_details(excerpt(text, &error)))
        }
    }
}

/// The line that `error` points at, around the place, so that whoever wrote it sees it.
fn excerpt(text: &str, error: &serde_json::Error) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let from = start_of_char(line, error.column().saturating_sub(20));
    format!("near `{}`", shortened(line.get(from..).unwrap_or_default(), 40))
}

/// The start of the character that byte `at` of `text` belongs to.
fn start_of_char(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

/// Why a field has not the form it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{place}`: {why}")]
pub struct FieldError {
    /// The field's path, for instance `runtimeConfig.portMappings[1]`.
    pub place: String,
    /// What is wrong with its value.
    pub why: String,
}

/// Reads `object[key]`; absent is the default. `within` is the object's own path, empty at the top.
///
/// # Errors
/// [`FieldError`] where the value is not a `T`; of a list, it names the element.
pub fn field<T: DeserializeOwned + Default>(
    object: &Map<String, Value>,
    key: &str,
    within: &str,
) -> Result<T, FieldError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => T::deserialize(value)
            .map_err(|error| FieldError { place: place(within, key), why: error.to_string() }),
    }
}

/// Reads the list `object[key]`; absent is `None`, which an empty list is not.
///
/// # Errors
/// As [`field`]; it names the element.
pub fn list<T: DeserializeOwned>(
    object: &Map<String, Value>,
    key: &str,
    within: &str,
) -> Result<Option<Vec<T>>, FieldError> {
    let items = match object.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(FieldError {
                place: place(within, key),
                why: format!("it is {}, not an array", kind_of(other)),
            });
        }
    };
    let read = |(index, item)| {
        T::deserialize(item).map_err(|error: serde_json::Error| FieldError {
            place: format!("{}[{index}]", place(within, key)),
            why: error.to_string(),
        })
    };
    items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn place(within: &str, key: &str) -> String {
    if within.is_empty() { key.to_owned() } else { format!("{within}.{key}") }
}

/// What a JSON value is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn decoding(msg: String) -> CniError {
    CniError::new(Code::Decoding, msg)
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Map<String, Value>, CniError> {
        parse_object(text.as_bytes(), "network configuration")
    }

    /// An endless writer that counts what is taken from it.
    struct Endless(usize);

    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            buf.fill(b' ');
            self.0 += buf.len();
            Ok(buf.len())
        }
    }

    #[test]
    fn an_endless_input_is_refused_after_one_mebibyte() {
        let mut input = Endless(0);
        let error = read_config(&mut input).unwrap_err();
        assert_eq!(error.code, Code::Decoding);
        assert_eq!(error.msg, "network configuration on stdin is larger than 1 MiB");
        assert!(input.0 <= MAX_CONFIG + 1, "read {} bytes", input.0);
    }

    #[test]
    fn the_limit_itself_is_accepted() {
        let bytes = vec![b' '; MAX_CONFIG];
        assert_eq!(read_config(&mut bytes.as_slice()).unwrap().len(), MAX_CONFIG);
    }

    #[test]
    fn failures_of_the_stream_are_told_apart() {
        struct Failing(io::ErrorKind);
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
        }
        let error = |kind| read_config(&mut Failing(kind)).unwrap_err();
        assert_eq!(
            error(io::ErrorKind::TimedOut).msg,
            "network configuration on stdin did not end in time; 0 bytes came"
        );
        assert_eq!(error(io::ErrorKind::ConnectionReset).msg, "error reading from stdin: connection reset");
        assert_eq!(error(io::ErrorKind::TimedOut).code, Code::Io);
    }

    #[test]
    fn errors_name_the_place() {
        let shown = |text: &str| {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, Code::Decoding);
            error.to_string()
        };
        insta::assert_snapshot!(shown("{not json"), @"cannot decode network configuration: key must be a string at line 1 column 2; near `{not json`");
        insta::assert_snapshot!(shown("{\"a\": 1,\n \"üüüüüüüüüüüüüüüüüüüü\": x}"), @r#"cannot decode network configuration: expected value at line 2 column 46; near `üüüüüüüü": x}`"#);
        insta::assert_snapshot!(shown(""), @"network configuration is empty");
        insta::assert_snapshot!(shown(" \n"), @"network configuration is empty");
        insta::assert_snapshot!(shown("[]"), @"network configuration is not a JSON object: invalid type: sequence, expected a map at line 1 column 0");
        insta::assert_snapshot!(shown("{} {}"), @"cannot decode network configuration: trailing characters at line 1 column 4; near `{} {}`");
        insta::assert_snapshot!(shown("{\"a\": 1"), @r#"cannot decode network configuration: EOF while parsing an object at line 1 column 7; near `{"a": 1`"#);
        let bytes = parse_object(b"{\"a\": \"\xff\"}", "network configuration").unwrap_err();
        insta::assert_snapshot!(bytes, @"network configuration is not UTF-8 at byte 7");
    }

    #[test]
    fn a_deep_nest_is_refused_and_not_walked() {
        let nest = |depth: usize| format!("{{\"a\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nest(100)).is_ok());
        assert!(parse(&nest(200)).unwrap_err().msg.contains("recursion limit"));
        assert!(parse(&"[".repeat(500_000)).is_err());
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_null_is_empty() {
        assert_eq!(parse(r#"{"a": 1, "a": 2}"#).unwrap().get("a"), Some(&Value::from(2)));
        assert_eq!(parse("null"), Ok(Map::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
            let _ = parse_object(&bytes, "network configuration");
        }

        #[test]
        fn text_that_is_nearly_json_is_answered(text in "[\\[\\]{}\":,0-9a-zü\\\\ \n.eE+-]{0,80}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.to_string().len() < 600);
            }
        }
    }
}
