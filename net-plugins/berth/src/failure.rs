//! Why a command failed, as it is told: the chain once, and what can be done about it on a line of its own.

use std::error::Error;
use std::fmt;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done, to follow "failed to".
    doing: String,
    /// The error and its causes, outermost first.
    causes: Vec<String>,
    hints: Vec<String>,
    /// The reader of standard output went away, which is its right.
    is_broken_pipe: bool,
}

impl Failure {
    /// `doing` follows "failed to". Lines of the error's text after the first are hints.
    pub(crate) fn new(doing: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::plain(doing, "");
        failure.causes.clear();
        let mut next = Some(error);
        while let Some(error) = next {
            next = error.source();
            let text = error.to_string();
            let mut lines = text.lines().map(str::to_owned);
            failure.causes.extend(lines.next());
            failure.hints.extend(lines);
            let io = error.downcast_ref::<std::io::Error>();
            failure.is_broken_pipe |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
        }
        failure
    }

    /// A failure that no error stands for.
    pub(crate) fn plain(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self { doing: doing.into(), causes: vec![why.into()], hints: Vec::new(), is_broken_pipe: false }
    }

    /// The same, with advice.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// For users who are not root: that this is the likely cause, unless something better was said.
    pub(crate) fn with_hint_for(mut self, is_root: bool) -> Self {
        if !is_root && self.hints.is_empty() {
            self.hints.push(
                "run it as root: berth changes the host's network and keeps its records for root".to_owned(),
            );
        }
        self
    }

    /// Whether it is only that nobody reads on.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.is_broken_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.doing, self.causes.join(": "))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n{hint}"))
    }
}

/// Names what was being done when something failed.
pub(crate) trait Doing<T> {
    /// `doing` follows "failed to".
    fn doing(self, doing: &str) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> Doing<T> for Result<T, E> {
    fn doing(self, doing: &str) -> Result<T, Failure> {
        self.map_err(|err| Failure::new(doing, &err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_core::CoreError;
    use berth_store::StoreError;

    #[test]
    fn the_chain_is_one_line_and_the_hint_another() {
        let error = CoreError::from(StoreError::Io {
            action: "open",
            path: "/run/berth/run.db".into(),
            source: std::io::Error::other("input/output error"),
        });
        let text = Failure::new("list networks", &error).with_hint_for(true).to_string();
        assert_eq!(text, "failed to list networks: failed to open `/run/berth/run.db`: input/output error");
        let error = CoreError::from(StoreError::Permission { path: "/run/berth".into() });
        insta::assert_snapshot!(Failure::new("list networks", &error).with_hint_for(false), @r"
        failed to list networks: no permission to use records `/run/berth`
        run as the owner of that directory, which usually is root
        ");
    }

    #[test]
    fn a_user_who_is_not_root_is_told_so() {
        let failure = Failure::new("collect", &CoreError::Missing { what: "not permitted".to_owned() });
        insta::assert_snapshot!(failure.with_hint_for(false), @r"
        failed to collect: not permitted
        run it as root: berth changes the host's network and keeps its records for root
        ");
    }

    #[test]
    fn a_reader_that_went_away_is_known() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(Failure::new("write", &error).is_broken_pipe());
        assert!(!Failure::plain("write", "no").is_broken_pipe());
    }
}
