//! What a refusal must be like.

use berth_integration::{Call, CniError, Host, Snapshot};

/// Makes the call and requires that it is refused with `code` and that the host is as before.
#[track_caller]
pub(crate) fn refused(host: &Host, call: &Call<'_>, command: &str, code: u64, what: &str) -> CniError {
    let before = Snapshot::of(host);
    let error = refused_quietly(call, command, &[code], what);
    before.assert_same(&Snapshot::of(host));
    error
}

/// Makes the call and requires that it is refused with one of `codes`, in words of bounded length.
#[track_caller]
pub(crate) fn refused_quietly(call: &Call<'_>, command: &str, codes: &[u64], what: &str) -> CniError {
    let ran = call.run(command);
    assert!(!ran.succeeded(), "{what}: {command} should have been refused: {}", ran.ran);
    let error = ran.err();
    assert!(codes.contains(&error.code), "{what}: {error}, and not code {codes:?}");
    assert!(error.msg.len() + error.details.len() < 4096, "{what}: {} bytes of words", error.msg.len());
    assert!(!error.msg.contains('\n'), "{what}: {:?}", error.msg);
    error
}
