//! The one place where the core's errors become the text Docker shows.

use berth_core::{Berth, CoreError};
use berth_overlay::attach::AttachError;
use berth_overlay::call::CallError;
use berth_plugin_http::Refusal;
use berth_types::{AttachmentKey, NetworkName};

use crate::names;

/// Why a call failed, on its way to the engine.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was refused before the core was asked.
    Refused(Refusal),
    /// The core failed.
    Core(CoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CoreError> for Failure {
    fn from(err: CoreError) -> Self {
        Self::Core(err)
    }
}

impl From<AttachError> for Failure {
    fn from(err: AttachError) -> Self {
        match err {
            AttachError::Core(err) => Self::Core(err),
            err => Self::Refused(Refusal::from_error(&err)),
        }
    }
}

impl From<CallError> for Failure {
    fn from(err: CallError) -> Self {
        Self::Refused(Refusal::from_error(&err))
    }
}

/// The text, where no core could be opened.
pub(crate) fn plain(failure: Failure) -> Refusal {
    match failure {
        Failure::Refused(refusal) => refusal,
        Failure::Core(err) => Refusal::from_error(&err),
    }
}

/// The text. Where it names a network or a container by its number, and the name is known, it says the name instead.
pub(crate) fn named(berth: &mut Berth, failure: Failure) -> Refusal {
    let err = match failure {
        Failure::Refused(refusal) => return refusal,
        Failure::Core(err) => err,
    };
    let mut text = Refusal::from_error(&err).to_string();
    if let CoreError::PortTaken(taken) = &err
        && let Some(name) = names::of_endpoint(berth, &taken.holder)
    {
        text = text.replace(&taken.holder.to_string(), &name);
    }
    for number in numbers(&err) {
        if let Some(name) = names::of_network(berth, &number) {
            text = text.replace(number.as_str(), &name);
        }
    }
    Refusal::new(text)
}

/// Networks the error names.
fn numbers(err: &CoreError) -> Vec<NetworkName> {
    use berth_core::declare::DeclareError;
    match err {
        CoreError::Declare(DeclareError::Subnet { holder, .. } | DeclareError::Bridge { holder, .. }) => {
            vec![holder.clone()]
        }
        CoreError::Declare(DeclareError::Exists { name }) => vec![name.clone()],
        CoreError::PortTaken(taken) => {
            let AttachmentKey { network, .. } = &taken.holder;
            vec![network.clone()]
        }
        _ => Vec::new(),
    }
}
