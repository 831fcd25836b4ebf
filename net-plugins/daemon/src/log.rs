//! What the daemon says: on standard error, where the journal or the terminal reads it.

use tracing_subscriber::EnvFilter;

/// Chooses what is logged, as `warn` or `berth_core=debug`; `info` unless it is set.
const FILTER: &str = "BERTH_LOG";
/// `json` for one object on a line.
const FORMAT: &str = "BERTH_LOG_FORMAT";

pub(crate) fn init() {
    let asked = std::env::var(FILTER).unwrap_or_default();
    let asked = if asked.is_empty() { "info" } else { &asked };
    // A filter that cannot be read must not stop the host's containers.
    let filter = EnvFilter::try_new(asked).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let json = std::env::var_os(FORMAT).is_some_and(|format| format == "json");
    // It can only fail where a subscriber is set already.
    let _ = if json {
        builder.json().try_init()
    } else if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has its own clock.
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
}
