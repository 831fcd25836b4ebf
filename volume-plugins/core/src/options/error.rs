//! Why options are refused: each says what would be accepted.

use crate::size::SizeError;

/// Options that no volume can be made of. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A key that this kind does not have.
    #[error("a {kind} volume has no option `{key}`\nallowed: {allowed}")]
    Key {
        /// The kind.
        kind: &'static str,
        /// The key given.
        key: String,
        /// What it has.
        allowed: String,
    },
    /// A word in `o` that this kind does not take.
    #[error("`{word}` in `o` is not allowed for a {kind} volume\nallowed: {allowed}")]
    Word {
        /// The kind.
        kind: &'static str,
        /// The word given.
        word: String,
        /// What it takes.
        allowed: String,
    },
    /// Two words or keys that cannot both hold.
    #[error("`{one}` and `{other}` contradict each other")]
    Contradiction {
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// A `type` that berth does not mount.
    #[error(
        "`type={given}` is not supported\nallowed: none (with `o=bind`), tmpfs, ext2, ext3, ext4, xfs, btrfs"
    )]
    Type {
        /// The value given.
        given: String,
    },
    /// `type=none` without `bind`.
    #[error("`type=none` needs `o=bind`\nfor instance: -o type=none -o o=bind -o device=/srv/data")]
    NoBind,
    /// A kind that needs a device has none.
    #[error("a {kind} volume needs `device`\nfor instance: device={example}")]
    NoDevice {
        /// The kind.
        kind: &'static str,
        /// One that would do.
        example: &'static str,
    },
    /// `device` is not a plain absolute path.
    #[error("`device={given}` is not usable: {why}\ngive an absolute path without `.` and `..`")]
    Device {
        /// The value given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key that means nothing without another one.
    #[error("`{key}` needs `{needs}`")]
    Needs {
        /// The key given.
        key: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// A size that is none.
    #[error("`{key}`: {source}")]
    Size {
        /// The key.
        key: &'static str,
        /// Why.
        source: SizeError,
    },
    /// A size that no file system fits into.
    #[error("`{key}={given}` is too small\nthe least is {least}")]
    TooSmall {
        /// The key.
        key: &'static str,
        /// The value given.
        given: String,
        /// What would do.
        least: &'static str,
    },
    /// A value that is not of the form asked for.
    #[error("`{key}={given}` is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value given.
        given: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A hostile value, short and without control characters, to be shown.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}
