//! The environment of a call, read once into types that cannot be wrong.
//!
//! The order of errors is the reference's: the first bad value is reported at once, then all missing names together.
//! Two things differ on purpose. An unknown `CNI_COMMAND` is refused before standard input is read, and `CNI_PATH` is
//! required by whoever delegates, not by every call: the specification calls it optional.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use berth_types::{ContainerId, IfName, NameError};

use super::error::{CniError, Code, shortened};

/// What a call asks for, with the values its verb requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Create the attachment.
    Add(Attachment),
    /// Verify the attachment.
    Check(Attachment),
    /// Remove the attachment.
    Del(Detachment),
    /// Remove every attachment of the network that is not listed as valid.
    Gc,
    /// Tell whether ADD can succeed.
    Status,
    /// Tell the supported versions.
    Version,
}

/// The whole environment of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// The verb and its values.
    pub command: Command,
    /// Where delegated plugins are.
    pub path: SearchPath,
    /// `CNI_NETNS_OVERRIDE` is `1` or `true`: the sandbox may be the plugin's own namespace.
    pub netns_override: bool,
}

/// The values of ADD and CHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The container.
    pub container: ContainerId,
    /// The interface inside the sandbox.
    pub ifname: IfName,
    /// The sandbox's path, verbatim: results repeat it, and CHECK compares it as text.
    pub netns: String,
    /// `CNI_ARGS`, unparsed; empty where absent. See [`super::CniArgs`].
    pub args: String,
}

/// The values of DEL: the sandbox may be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detachment {
    /// The container.
    pub container: ContainerId,
    /// The interface inside the sandbox.
    pub ifname: IfName,
    /// The sandbox's path; absent where the runtime no longer has one.
    pub netns: Option<String>,
    /// `CNI_ARGS`, unparsed; empty where absent.
    pub args: String,
}

/// The values of GC and STATUS, which are about a network and no container: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network;

/// `CNI_PATH`: the directories of plugins, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// Splits a colon-separated list. Empty parts are dropped: they would mean the current directory.
    pub fn new(text: &str) -> Self {
        Self(text.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect())
    }

    /// The directories in order.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// Whether there is no directory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list as `CNI_PATH` carries it.
    pub fn to_env(&self) -> OsString {
        let dirs: Vec<_> = self.0.iter().map(|dir| dir.as_os_str()).collect();
        dirs.join(std::ffi::OsStr::new(":"))
    }
}

impl From<Attachment> for Detachment {
    /// What undoes an ADD.
    fn from(attachment: Attachment) -> Self {
        let Attachment { container, ifname, netns, args } = attachment;
        Self { container, ifname, netns: Some(netns), args }
    }
}

/// The CNI variables that name what a call is about; a delegated call repeats them.
pub trait Target {
    /// Names and values; a variable not listed is to be absent.
    fn variables(&self) -> Vec<(&'static str, &str)>;
}

impl Target for Attachment {
    fn variables(&self) -> Vec<(&'static str, &str)> {
        let Self { container, ifname, netns, args } = self;
        vec![
            (CONTAINERID, container.as_str()),
            (NETNS, netns.as_str()),
            (IFNAME, ifname.as_str()),
            (ARGS, args.as_str()),
        ]
    }
}

impl Target for Detachment {
    fn variables(&self) -> Vec<(&'static str, &str)> {
        let Self { container, ifname, netns, args } = self;
        let netns = netns.as_deref().unwrap_or_default();
        vec![
            (CONTAINERID, container.as_str()),
            (NETNS, netns),
            (IFNAME, ifname.as_str()),
            (ARGS, args.as_str()),
        ]
    }
}

impl Target for Network {
    fn variables(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
}

pub(crate) const COMMAND: &str = "CNI_COMMAND";
pub(crate) const CONTAINERID: &str = "CNI_CONTAINERID";
pub(crate) const NETNS: &str = "CNI_NETNS";
pub(crate) const IFNAME: &str = "CNI_IFNAME";
pub(crate) const ARGS: &str = "CNI_ARGS";
pub(crate) const PATH: &str = "CNI_PATH";
pub(crate) const NETNS_OVERRIDE: &str = "CNI_NETNS_OVERRIDE";

/// Reads the environment through `getenv`. `None` means there is no `CNI_COMMAND`: a person called, not a runtime.
///
/// # Errors
/// [`Code::InvalidEnvironment`], naming the variable.
pub fn read(getenv: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Env>, CniError> {
    let mut vars = Vars { getenv, missing: Vec::new() };
    let command = match vars.text(COMMAND)?.as_str() {
        "" => return Ok(None),
        "VERSION" => {
            let (path, netns_override) = (SearchPath::default(), false);
            return Ok(Some(Env { command: Command::Version, path, netns_override }));
        }
        "ADD" => Command::Add(vars.attachment()?),
        "CHECK" => Command::Check(vars.attachment()?),
        "DEL" => Command::Del(vars.detachment()?),
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        other => return Err(invalid(format!("unknown CNI_COMMAND: {}", shortened(other, 40)))),
    };
    let path = SearchPath::new(&vars.text(PATH)?);
    let netns_override = matches!(vars.text(NETNS_OVERRIDE)?.to_ascii_lowercase().as_str(), "1" | "true");
    Ok(Some(Env { command, path, netns_override }))
}

struct Vars<'a> {
    getenv: &'a dyn Fn(&str) -> Option<OsString>,
    missing: Vec<&'static str>,
}

impl Vars<'_> {
    /// The value of `name`, empty where it is absent: the protocol does not tell the two apart.
    fn text(&self, name: &'static str) -> Result<String, CniError> {
        let value = (self.getenv)(name).unwrap_or_default();
        value.into_string().map_err(|raw| {
            invalid(format!("{name} is not UTF-8")).with_details(shortened(&raw.to_string_lossy(), 200))
        })
    }

    /// The value of a required `name`, remembered as missing where it is empty.
    fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(String) -> Result<T, CniError>,
    ) -> Result<Option<T>, CniError> {
        let text = self.text(name)?;
        if text.is_empty() {
            self.missing.push(name);
            return Ok(None);
        }
        parse(text).map(Some)
    }

    fn attachment(&mut self) -> Result<Attachment, CniError> {
        let container = self.required(CONTAINERID, container_id)?;
        let netns = self.required(NETNS, Ok)?;
        let ifname = self.required(IFNAME, interface_name)?;
        let args = self.text(ARGS)?;
        match (container, netns, ifname) {
            (Some(container), Some(netns), Some(ifname)) => Ok(Attachment { container, ifname, netns, args }),
            _ => Err(self.missing()),
        }
    }

    fn detachment(&mut self) -> Result<Detachment, CniError> {
        let container = self.required(CONTAINERID, container_id)?;
        let netns = Some(self.text(NETNS)?).filter(|netns| !netns.is_empty());
        let ifname = self.required(IFNAME, interface_name)?;
        let args = self.text(ARGS)?;
        match (container, ifname) {
            (Some(container), Some(ifname)) => Ok(Detachment { container, ifname, netns, args }),
            _ => Err(self.missing()),
        }
    }

    fn missing(&self) -> CniError {
        invalid(format!("required env variables [{}] missing", self.missing.join(",")))
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, msg)
}

fn container_id(text: String) -> Result<ContainerId, CniError> {
    ContainerId::new(text.as_str()).map_err(|_| {
        invalid("invalid characters in containerID".to_owned()).with_details(shortened(&text, 60))
    })
}

/// The words are the reference's, the rule is the kernel's: `%` and control characters are refused as well.
fn interface_name(text: String) -> Result<IfName, CniError> {
    IfName::new(text.as_str()).map_err(|error| match error {
        NameError::Empty { .. } => invalid("interface name is empty".to_owned()),
        NameError::TooLong { .. } => invalid("interface name is too long".to_owned())
            .with_details("interface name should be less than 16 characters"),
        NameError::Dots => invalid("interface name is . or ..".to_owned()),
        NameError::BadCharacter { .. }
            if text.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace()) =>
        {
            invalid("interface name contains / or : or whitespace characters".to_owned())
        }
        NameError::BadCharacter { .. } => {
            invalid("interface name contains % or control characters".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<Option<Env>, CniError> {
        let vars: BTreeMap<&str, &str> = vars.iter().copied().collect();
        read(&|name| vars.get(name).map(OsString::from))
    }

    /// A complete environment of `command` with `changes` applied; an empty value is absent.
    fn changed(command: &str, changes: &[(&str, &str)]) -> Result<Option<Env>, CniError> {
        let mut vars = vec![
            (COMMAND, command),
            (CONTAINERID, "c1"),
            (NETNS, "/run/netns/c0"),
            (IFNAME, "eth0"),
            (PATH, "/opt/cni/bin:/usr/lib/cni"),
        ];
        vars.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        vars.extend_from_slice(changes);
        with(&vars)
    }

    #[test]
    fn messages_are_the_references() {
        for (command, changes, msg, details) in [
            ("FROB", &[][..], "unknown CNI_COMMAND: FROB", ""),
            ("add", &[], "unknown CNI_COMMAND: add", ""),
            ("ADD", &[(CONTAINERID, "../x")], "invalid characters in containerID", "../x"),
            ("ADD", &[(CONTAINERID, "")], "required env variables [CNI_CONTAINERID] missing", ""),
            (
                "ADD",
                &[(CONTAINERID, ""), (NETNS, ""), (IFNAME, "")],
                "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing",
                "",
            ),
            ("CHECK", &[(NETNS, "")], "required env variables [CNI_NETNS] missing", ""),
            (
                "DEL",
                &[(CONTAINERID, ""), (NETNS, ""), (IFNAME, "")],
                "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing",
                "",
            ),
            ("ADD", &[(IFNAME, "a/b")], "interface name contains / or : or whitespace characters", ""),
            ("ADD", &[(IFNAME, "a b")], "interface name contains / or : or whitespace characters", ""),
            ("ADD", &[(IFNAME, "eth%d")], "interface name contains % or control characters", ""),
            ("ADD", &[(IFNAME, "..")], "interface name is . or ..", ""),
            (
                "ADD",
                &[(IFNAME, "sixteen-bytes-xx")],
                "interface name is too long",
                "interface name should be less than 16 characters",
            ),
            // A bad value is reported before a missing one, whatever their order.
            (
                "ADD",
                &[(CONTAINERID, ""), (IFNAME, "a/b")],
                "interface name contains / or : or whitespace characters",
                "",
            ),
            ("DEL", &[(CONTAINERID, "../x"), (IFNAME, "")], "invalid characters in containerID", "../x"),
        ] {
            let error = changed(command, changes).unwrap_err();
            assert_eq!((error.msg.as_str(), error.details.as_str()), (msg, details), "{command} {changes:?}");
            assert_eq!(error.code, Code::InvalidEnvironment);
        }
    }

    #[test]
    fn no_command_is_no_error() {
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[(COMMAND, ""), (CONTAINERID, "../x")]), Ok(None));
    }

    #[test]
    fn a_complete_environment_is_read() {
        let env = changed("ADD", &[(ARGS, "K=V"), (NETNS_OVERRIDE, "TRUE")]).unwrap().unwrap();
        let attachment = Attachment {
            container: ContainerId::new("c1").unwrap(),
            ifname: IfName::new("eth0").unwrap(),
            netns: "/run/netns/c0".to_owned(),
            args: "K=V".to_owned(),
        };
        assert_eq!(env.command, Command::Add(attachment));
        assert_eq!(
            env.path.dirs().collect::<Vec<_>>(),
            [Path::new("/opt/cni/bin"), Path::new("/usr/lib/cni")]
        );
        assert_eq!(env.path.to_env(), "/opt/cni/bin:/usr/lib/cni");
        assert!(env.netns_override);
    }

    #[test]
    fn each_verb_needs_only_its_own_variables() {
        let bare =
            |command| with(&[(COMMAND, command), (CONTAINERID, "../x"), (IFNAME, "a/b")]).unwrap().unwrap();
        assert_eq!(bare("VERSION").command, Command::Version);
        assert_eq!(bare("GC").command, Command::Gc);
        assert_eq!(bare("STATUS").command, Command::Status);
        let Command::Del(del) = changed("DEL", &[(NETNS, "")]).unwrap().unwrap().command else {
            panic!("no DEL")
        };
        assert_eq!(del.netns, None);
        assert!(changed("ADD", &[(PATH, "")]).unwrap().unwrap().path.is_empty());
    }

    #[test]
    fn the_override_takes_one_and_true_only() {
        for (text, on) in
            [("1", true), ("true", true), ("True", true), ("0", false), ("yes", false), ("", false)]
        {
            let env = changed("ADD", &[(NETNS_OVERRIDE, text)]).unwrap().unwrap();
            assert_eq!(env.netns_override, on, "{text:?}");
        }
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_named() {
        for bad in [COMMAND, CONTAINERID, NETNS, IFNAME, ARGS, PATH, NETNS_OVERRIDE] {
            let getenv = |name: &str| match name {
                name if name == bad => Some(OsString::from_vec(b"\xffx".to_vec())),
                COMMAND => Some("ADD".into()),
                _ => Some("x".into()),
            };
            let error = read(&getenv).unwrap_err();
            assert_eq!((error.code, error.msg), (Code::InvalidEnvironment, format!("{bad} is not UTF-8")));
        }
    }

    #[test]
    fn empty_parts_of_the_path_do_not_mean_the_current_directory() {
        assert_eq!(SearchPath::new(":/a::/b:"), SearchPath::new("/a:/b"));
        assert!(SearchPath::new("::").is_empty());
    }

    proptest! {
        #[test]
        fn any_environment_is_answered(command in "(ADD|DEL|CHECK|GC|STATUS|VERSION|.*)", values in prop::collection::vec(any::<Vec<u8>>(), 6)) {
            let names = [CONTAINERID, NETNS, IFNAME, ARGS, PATH, NETNS_OVERRIDE];
            let getenv = |name: &str| match names.iter().position(|known| *known == name) {
                Some(index) => Some(OsString::from_vec(values[index].clone())),
                None => Some(OsString::from(command.clone())),
            };
            if let Err(error) = read(&getenv) {
                prop_assert_eq!(error.code, Code::InvalidEnvironment);
                prop_assert!(error.to_string().len() < 2000);
            }
        }
    }
}
