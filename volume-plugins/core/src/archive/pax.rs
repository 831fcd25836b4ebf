//! Records of PAX headers: `LENGTH KEY=VALUE\n`, where the length counts itself.

use crate::error::VolumeError;

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Records for one header.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Adds a record.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        // ` `, `=` and `\n` beside the two, and the length's own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + digits(length) {
            length = rest + digits(length);
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads records by their lengths: values may hold any byte.
pub(super) fn parse(mut text: &[u8]) -> Result<Vec<Record>, VolumeError> {
    let refuse = || VolumeError::Archive { why: "a header of attributes in it is damaged".to_owned() };
    let mut records = Vec::new();
    // What fills a block after the last record is zeros.
    while text.first().is_some_and(|byte| *byte != 0) {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(refuse)?;
        let (length, _) = text.split_at_checked(space).ok_or_else(refuse)?;
        let length = usize::try_from(number(length)?).map_err(|_| refuse())?;
        let (record, rest) = text.split_at_checked(length).ok_or_else(refuse)?;
        let record =
            record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(refuse)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(refuse)?;
        let (key, value) = record.split_at_checked(equals).ok_or_else(refuse)?;
        records.push((key.to_vec(), value.get(1..).unwrap_or_default().to_vec()));
        text = rest;
    }
    Ok(records)
}

/// A number in decimal digits and nothing else.
pub(super) fn number(text: &[u8]) -> Result<u64, VolumeError> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| VolumeError::Archive { why: "a number in it is none".to_owned() })
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A time as PAX writes it, read: `1700000000.000000001`.
pub(super) fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.is_empty() {
        return Some((seconds, 0));
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // Before 1970 the fraction counts downwards.
    if text.starts_with('-') && nanos > 0 {
        Some((seconds - 1, 1_000_000_000 - nanos))
    } else {
        Some((seconds, nanos))
    }
}

/// A time as PAX writes it.
pub(super) fn time_text((seconds, nanos): (i64, i64)) -> String {
    if seconds >= 0 {
        return format!("{seconds}.{nanos:09}");
    }
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    format!("-{}.{:09}", -total / 1_000_000_000, -total % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_count_their_own_digits() {
        for (value, text) in [("", "6 k=\n"), ("abc", "8 k=abc\n"), ("abcde", "11 k=abcde\n")] {
            let mut records = Records::default();
            records.push(b"k", value.as_bytes());
            let expected = if value.is_empty() { "5 k=\n" } else { text };
            assert_eq!(std::str::from_utf8(records.as_bytes()).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn every_record_is_as_long_as_it_says(key in "[a-zA-Z.]{1,20}", value in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut records = Records::default();
            records.push(key.as_bytes(), &value);
            let text = records.as_bytes();
            let length: usize = std::str::from_utf8(text.split(|b| *b == b' ').next().unwrap()).unwrap().parse().unwrap();
            prop_assert_eq!(length, text.len());
            prop_assert_eq!(parse(text).unwrap(), [(key.into_bytes(), value)]);
        }

        #[test]
        fn no_records_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200), line in "[0-9]{0,3} ?[a-z=]{0,9}\n?") {
            let _ = parse(&text);
            let _ = parse(line.as_bytes());
        }

        #[test]
        fn times_are_read_as_written(seconds in -10_000_000_000_i64..10_000_000_000, nanos in 0..1_000_000_000_i64) {
            prop_assert_eq!(time(time_text((seconds, nanos)).as_bytes()), Some((seconds, nanos)));
        }
    }
}
