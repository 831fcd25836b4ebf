//! Reading the ruleset back, for checks and repairs only.

use std::collections::BTreeSet;

use berth_nft::{Element, NftSocket, ReadError};

use crate::error::CoreError;

/// Which of `wanted` the ruleset lacks; all, where it is not laid.
pub fn missing(wanted: &BTreeSet<Element>) -> Result<Vec<Element>, CoreError> {
    /// Up to here a request for each is cheaper than reading all sets.
    const FEW: usize = 16;
    if wanted.len() > FEW {
        let held = dump()?;
        return Ok(wanted.difference(&held).cloned().collect());
    }
    let mut socket = NftSocket::open()?;
    let mut missing = Vec::new();
    for element in wanted {
        match socket.contains(element) {
            Ok(true) => (),
            Ok(false) => missing.push(element.clone()),
            Err(ReadError::NoRuleset) => return Ok(wanted.iter().cloned().collect()),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(missing)
}

/// Every element of the ruleset; none, where it is not laid.
pub fn dump() -> Result<BTreeSet<Element>, CoreError> {
    match NftSocket::open()?.dump_elements() {
        Ok(dump) => Ok(dump.elements.into_iter().collect()),
        Err(ReadError::NoRuleset) => Ok(BTreeSet::new()),
        Err(err) => Err(err.into()),
    }
}
