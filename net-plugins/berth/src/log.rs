//! What berth says to whoever repairs it: on standard error, and only what was asked for.

use tracing_subscriber::EnvFilter;

/// Chooses what is logged, as `warn` or `berth_core=debug`.
const FILTER: &str = "BERTH_LOG";
/// `json` for one object on a line.
const FORMAT: &str = "BERTH_LOG_FORMAT";

/// For plugins: nothing is set up unless `BERTH_LOG` is set, because nobody reads it and it costs time.
pub(crate) fn init_if_asked() {
    if let Some(filter) = std::env::var_os(FILTER).filter(|filter| !filter.is_empty()) {
        init(&filter.to_string_lossy());
    }
}

/// For people: warnings, unless `BERTH_LOG` says otherwise.
pub(crate) fn init_for_people() {
    let filter = std::env::var(FILTER).unwrap_or_default();
    init(if filter.is_empty() { "warn" } else { &filter });
}

fn init(filter: &str) {
    // A filter that cannot be read must not stop a container: warnings then.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var_os(FORMAT).is_some_and(|format| format == "json");
    // It can only fail where a subscriber is set already.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
