//! Sizes as people write them.

use std::fmt;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size\nwrite bytes or a number with k, M, G or T, for instance 512M or 10G")]
pub struct SizeError {
    text: String,
}

/// A number of bytes, shown as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Reads a size: digits, perhaps with a decimal point, then perhaps a unit (`k`, `M`, `G`, `T`, `P` in either case, perhaps with
/// `B` or `iB`; all count in 1024s, as Docker's do). No sign, no white space.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    exact(text)
        .ok_or_else(|| SizeError { text: text.chars().take(40).flat_map(char::escape_default).collect() })
}

fn exact(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits_end)?;
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    let bytes = scaled.checked_mul(1024_u128.pow(power))?.checked_div(scale)?;
    u64::try_from(bytes).ok().filter(|bytes| *bytes <= i64::MAX.cast_unsigned())
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut unit = 0;
        let mut whole = self.0;
        let mut rest = 0;
        while whole >= 1024 && unit < UNITS.len() - 1 {
            rest = whole % 1024;
            whole /= 1024;
            unit += 1;
        }
        let unit = UNITS.get(unit).unwrap_or(&"PiB");
        let tenth = rest * 10 / 1024;
        if whole >= 100 || tenth == 0 {
            f.pad(&format!("{whole} {unit}"))
        } else {
            f.pad(&format!("{whole}.{tenth} {unit}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10k", 10 << 10),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10gb", 10 << 30),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("100b", 100),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let endless = "9".repeat(400);
        for text in [
            "", "-1", "+1", "1 G", " 1", "G", "1x", "1..2", ".5", "5.", "0x10", "1e3", "99999P", "1%", "1\0",
            "1,5G", "１G", &endless,
        ] {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        let shown =
            [0, 1023, 1024, 1536, 10 << 30, (10 << 30) + (300 << 20), 999 << 20].map(|n| Size(n).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "10 GiB", "10.2 GiB", "999 MiB"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn bytes_are_themselves(bytes in 0..=i64::MAX.cast_unsigned()) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }
    }
}
