//! One `-o KEY=VALUE` of a network, whatever driver it is of: looked up under berth's name or Docker's, and read.

use std::net::IpAddr;
use std::str::FromStr;

use berth_plugin_http::Refusal;
use berth_types::IfName;

/// An option that a driver knows.
#[derive(Debug)]
pub(crate) struct DriverOption {
    /// berth's name of it.
    pub(crate) short: &'static str,
    /// Docker's.
    pub(crate) docker: Option<&'static str>,
    /// What it takes, for people.
    pub(crate) takes: &'static str,
}

/// An option as it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'g> {
    known: &'static [DriverOption],
    option: &'static DriverOption,
    key: &'g str,
    value: &'g str,
}

impl<'g> Given<'g> {
    /// Looks it up among those that the driver knows.
    pub(crate) fn find(
        known: &'static [DriverOption],
        key: &'g str,
        value: &'g str,
    ) -> Result<Self, Refusal> {
        let option = known.iter().find(|one| one.short == key || one.docker == Some(key));
        let unknown =
            || Refusal::new(format!("unknown option `{}`; known are {}", shortened(key), list(known)));
        Ok(Self { known, option: option.ok_or_else(unknown)?, key, value })
    }

    /// berth's name of it.
    pub(crate) fn short(&self) -> &'static str {
        self.option.short
    }

    /// What was given.
    pub(crate) fn value(&self) -> &'g str {
        self.value
    }

    /// That its value is none.
    pub(crate) fn wrong(&self) -> Refusal {
        let Self { known, option: DriverOption { takes, .. }, key, value } = self;
        let value = shortened(value);
        Refusal::new(format!(
            "option `{key}` takes {takes}, not `{value}`; known options are {}",
            list(known)
        ))
    }

    pub(crate) fn parsed<T: FromStr>(&self) -> Result<T, Refusal> {
        self.value.parse().map_err(|_| self.wrong())
    }

    pub(crate) fn boolean(&self) -> Result<bool, Refusal> {
        parse_bool(self.value).ok_or_else(|| self.wrong())
    }

    /// The largest packet, bytes. Docker's driver takes 0 for "not said".
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Refusal> {
        let mtu: u32 = self.parsed()?;
        match mtu {
            0 => Ok(None),
            68..=65_535 => Ok(Some(mtu)),
            _ => Err(self.wrong()),
        }
    }

    /// An address of the host; the unspecified one is none.
    pub(crate) fn address(&self) -> Result<Option<IpAddr>, Refusal> {
        let addr: IpAddr = self.parsed()?;
        Ok(Some(addr).filter(|addr| !addr.is_unspecified()))
    }

    /// What links are called in containers, to which the engine adds a number.
    pub(crate) fn link_prefix(&self) -> Result<String, Refusal> {
        let fits = !self.value.is_empty() && IfName::new(format!("{}99", self.value)).is_ok();
        fits.then(|| self.value.to_owned()).ok_or_else(|| self.wrong())
    }
}

/// The list of known options, as a person reads it.
fn list(known: &[DriverOption]) -> String {
    let text = |known: &DriverOption| match known.docker {
        Some(docker) => format!("{} ({docker})", known.short),
        None => known.short.to_owned(),
    };
    known.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The words that Docker's own options take (Go's `strconv.ParseBool`).
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
