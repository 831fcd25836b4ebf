//! The words of `o`: for each kind a list, and nothing beside it.

use super::error::shown;
use super::{Filesystem, Flags, OptionError};

/// The words of one `o`, those that are flags of the mount told apart from the rest.
pub(super) struct Words {
    kind: &'static str,
    allowed: String,
    flags: Vec<String>,
    /// The others: a word alone, or `word=value`.
    rest: Vec<(String, Option<String>)>,
}

/// Flags that every mounted kind may choose.
const FLAGS: &[&str] = &["ro", "rw", "exec", "noexec", "nosuid", "nodev"];

/// Flags about access times.
const TIMES: &[&str] = &["noatime", "nodiratime", "relatime"];

/// How a bind volume's mount events are shared. Never with the host: what a container mounts stays its own.
const PROPAGATION: &[&str] = &["private", "rprivate", "slave", "rslave"];

impl Words {
    /// The words of a bind volume.
    pub(super) fn bind(text: &str) -> Result<Self, OptionError> {
        Self::read("bind", text, &[FLAGS, PROPAGATION, &["bind", "rbind"]], &[])
    }

    /// The words of a tmpfs.
    pub(super) fn tmpfs(text: &str) -> Result<Self, OptionError> {
        Self::read("tmpfs", text, &[FLAGS, TIMES], &["size", "mode", "uid", "gid", "nr_inodes"])
    }

    /// The words of a file system on a device.
    pub(super) fn device(fs: Filesystem, text: &str) -> Result<Self, OptionError> {
        let (alone, valued): (&[&str], &[&str]) = match fs {
            Filesystem::Ext2 | Filesystem::Ext3 => (&[], &[]),
            Filesystem::Ext4 => (&["discard", "nodiscard"], &[]),
            Filesystem::Xfs => (&["discard", "nodiscard", "nouuid"], &[]),
            Filesystem::Btrfs => (&["discard", "nodiscard"], &["subvol", "compress"]),
        };
        Self::read(fs.name(), text, &[FLAGS, TIMES, alone], valued)
    }

    fn read(kind: &'static str, text: &str, alone: &[&[&str]], valued: &[&str]) -> Result<Self, OptionError> {
        let alone = alone.concat();
        let values = valued.iter().map(|word| format!("{word}=…"));
        let allowed =
            alone.iter().map(|word| (*word).to_owned()).chain(values).collect::<Vec<_>>().join(", ");
        let mut words = Self { kind, allowed, flags: Vec::new(), rest: Vec::new() };
        for word in text.split(',') {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            let known = match value {
                None => alone.contains(&key),
                Some(value) => valued.contains(&key) && is_plain(value),
            };
            if !known {
                return Err(words.refuse(word));
            }
            let is_flag = FLAGS.contains(&key) || TIMES.contains(&key) || PROPAGATION.contains(&key);
            if value.is_none() && is_flag {
                words.flags.push(key.to_owned());
            } else {
                words.take(key, value)?;
            }
        }
        for (one, other) in [
            ("ro", "rw"),
            ("exec", "noexec"),
            ("noatime", "relatime"),
            ("private", "slave"),
            ("rprivate", "rslave"),
            ("private", "rslave"),
            ("rprivate", "slave"),
        ] {
            if words.has(one) && words.has(other) {
                return Err(OptionError::Contradiction { one: one.to_owned(), other: other.to_owned() });
            }
        }
        Ok(words)
    }

    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), OptionError> {
        let given = (key.to_owned(), value.map(str::to_owned));
        let text = |(key, value): &(String, Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        if let Some(before) = self.rest.iter().find(|(other, _)| other == key)
            && *before != given
        {
            return Err(OptionError::Contradiction { one: text(before), other: text(&given) });
        }
        self.rest.push(given);
        Ok(())
    }

    fn refuse(&self, word: &str) -> OptionError {
        OptionError::Word { kind: self.kind, word: shown(word), allowed: self.allowed.clone() }
    }

    /// Whether the flag was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// Takes out a word that is no flag; whether it was given.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|(key, _)| key != word);
        self.rest.len() < before
    }

    /// Takes out the value of a word.
    pub(super) fn take_value(&mut self, word: &str) -> Option<String> {
        let value = self.rest.iter().find(|(key, _)| key == word).and_then(|(_, value)| value.clone());
        self.take_word(word);
        value
    }

    /// The flags of the mount.
    pub(super) fn flags(&self) -> Flags {
        Flags {
            read_only: self.has("ro"),
            no_exec: self.has("noexec"),
            no_atime: self.has("noatime"),
            no_dir_atime: self.has("nodiratime"),
        }
    }

    /// What is left, as the file system takes it.
    pub(super) fn into_data(self) -> Vec<String> {
        let mut data: Vec<String> = self
            .rest
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => format!("{key}={value}"),
                None => key,
            })
            .collect();
        data.dedup();
        data
    }
}

/// Values are passed to the kernel: nothing that separates, quotes or escapes.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 255
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'@' | b':' | b'-'))
}
