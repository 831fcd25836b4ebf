//! Reading host-local's JSON, with the name of the field in each refusal. Keys are canonical by now; `null` and an empty
//! text are an absent value, as Go's decoder has it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::ConfigError;

type Object = Map<String, Value>;

/// The field, unless it is absent or `null`.
pub(crate) fn field<'v>(object: &'v Object, name: &str) -> Option<&'v Value> {
    object.get(name).filter(|value| !value.is_null())
}

pub(crate) fn object<'v>(value: &'v Value, path: &str) -> Result<&'v Object, ConfigError> {
    value.as_object().ok_or_else(|| wrong_type(path, "an object", value))
}

/// The elements of a list field; none if it is absent.
pub(crate) fn list<'v>(object: &'v Object, path: &str, name: &str) -> Result<&'v [Value], ConfigError> {
    match field(object, name) {
        None => Ok(&[]),
        Some(value) => array(value, &format!("{path}.{name}")),
    }
}

pub(crate) fn array<'v>(value: &'v Value, path: &str) -> Result<&'v [Value], ConfigError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Null => Ok(&[]),
        other => Err(wrong_type(path, "a list", other)),
    }
}

/// A text field; absent if it is empty.
pub(crate) fn text<'v>(object: &'v Object, path: &str, name: &str) -> Result<Option<&'v str>, ConfigError> {
    match field(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(wrong_type(&format!("{path}.{name}"), "a text", other)),
    }
}

/// An address field.
pub(crate) fn addr(object: &Object, path: &str, name: &str) -> Result<Option<IpAddr>, ConfigError> {
    text(object, path, name)?.map(|text| parse_addr(text, &format!("{path}.{name}"))).transpose()
}

/// A prefix field. Host bits are kept.
pub(crate) fn cidr(object: &Object, path: &str, name: &str) -> Result<Option<IpNetwork>, ConfigError> {
    let parse = |text: &str| {
        parse_cidr(text)
            .ok_or_else(|| ConfigError::Cidr { text: shortened(text), path: format!("{path}.{name}") })
    };
    text(object, path, name)?.map(parse).transpose()
}

pub(crate) fn parse_addr(text: &str, path: &str) -> Result<IpAddr, ConfigError> {
    // An IPv4 address in IPv6 clothes is the IPv4 address, as in Go.
    text.parse()
        .map(|address: IpAddr| address.to_canonical())
        .map_err(|_| ConfigError::Addr { text: shortened(text), path: path.to_owned() })
}

/// `address/length`, strictly: no netmask, no sign, no missing length.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    if !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    IpNetwork::new(address.parse().ok()?, length.parse().ok()?).ok()
}

pub(crate) fn wrong_type(path: &str, expected: &'static str, found: &Value) -> ConfigError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ConfigError::Type { path: path.to_owned(), expected, found }
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
