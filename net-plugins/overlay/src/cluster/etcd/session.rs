//! The connection: one member at a time, another when that one fails, and a reason when none is left.
//!
//! etcd-client can spread its calls over all members, but it goes on sending to one that is dead, so that a part of the calls
//! fails for as long as it is. Here all members are tried at once when there is no connection, and the first that answers a
//! read that needs the cluster's majority is used until it fails.

use std::time::Duration;

use etcd_client::{Channel, Client, Error, GetOptions};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::{DEADLINE, EtcdConfig, TlsFiles};
use crate::cluster::ClusterError;

/// How long one member has to answer, of the time all have: what is left is for saying why none did.
const MEMBER: Duration = Duration::from_millis(2_600);

/// In what time a person is told that an address, a certificate or a password is wrong, the start of the program included.
const SAID: Duration = Duration::from_secs(3);

/// What starting a program and printing its last words takes, and more.
const WORDS: Duration = Duration::from_millis(300);

const _: () = assert!(
    MEMBER.as_millis() + WORDS.as_millis() <= SAID.as_millis() && MEMBER.as_millis() < DEADLINE.as_millis(),
    "what is wrong is said too late"
);

/// The connection of a cluster.
pub(super) struct Sessions {
    config: EtcdConfig,
    current: Mutex<Option<Session>>,
}

/// A connection to one member.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) endpoint: String,
    number: u64,
}

/// Why one call, or one member, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer, or none that could be had: another member may give it.
    Away(String),
    /// Not this user, password or certificate.
    Refused(String),
    /// Not the etcd it should be.
    Untrusted(String),
    /// What was given to reach it by.
    Config(String),
    /// The history that was asked for is no more.
    Compacted,
}

impl Sessions {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, current: Mutex::new(None) }
    }

    pub(super) fn name(&self) -> String {
        self.config.name()
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    pub(super) fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// The connection, made if there is none. Callers that come together wait for one.
    pub(super) async fn get(&self) -> Result<Session, Fault> {
        let mut current = self.current.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let session = connect(&self.config, Instant::now() + MEMBER).await?;
        *current = Some(session.clone());
        Ok(session)
    }

    /// Drops the connection, if it is still `session`.
    pub(super) async fn drop(&self, session: &Session) {
        self.current.lock().await.take_if(|current| current.number == session.number);
    }

    /// `fault`, as the caller is told.
    pub(super) fn error(&self, fault: Fault) -> ClusterError {
        let cluster = self.name();
        match fault {
            Fault::Away(why) => ClusterError::Away { cluster, why },
            Fault::Compacted => {
                ClusterError::Away { cluster, why: "its history was compacted meanwhile".to_owned() }
            }
            Fault::Refused(why) => ClusterError::Refused { cluster, why },
            Fault::Untrusted(why) => ClusterError::Untrusted { cluster, why },
            Fault::Config(why) => ClusterError::Config { cluster, why },
        }
    }
}

/// Tries all members at once, until `deadline`; the first that answers wins.
async fn connect(config: &EtcdConfig, deadline: Instant) -> Result<Session, Fault> {
    config.check().map_err(Fault::Config)?;
    let mut tries = JoinSet::new();
    for endpoint in config.endpoints.clone() {
        let config = config.clone();
        tries.spawn(async move {
            let result = reach(&config, &endpoint, deadline).await;
            (endpoint, result)
        });
    }
    let mut faults = Vec::new();
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok((endpoint, Ok(client))) => return Ok(Session { client, endpoint, number: number() }),
            Ok((endpoint, Err(fault))) => faults.push((endpoint, fault)),
            Err(err) => faults.push(("?".to_owned(), Fault::Away(err.to_string()))),
        }
    }
    Err(gathered(faults))
}

fn number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What all members together say. One that answered and refused knows more than one that did not answer.
fn gathered(mut faults: Vec<(String, Fault)>) -> Fault {
    faults.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text = |(endpoint, fault): &(String, Fault)| match fault {
        Fault::Away(why) | Fault::Refused(why) | Fault::Untrusted(why) | Fault::Config(why) => {
            format!("{endpoint}: {why}")
        }
        Fault::Compacted => format!("{endpoint}: compacted"),
    };
    let why = faults.iter().map(text).collect::<Vec<_>>().join("; ");
    let any = |is: fn(&Fault) -> bool| faults.iter().any(|(_, fault)| is(fault));
    if any(|fault| matches!(fault, Fault::Config(_))) {
        Fault::Config(why)
    } else if any(|fault| matches!(fault, Fault::Refused(_))) {
        Fault::Refused(why)
    } else if any(|fault| matches!(fault, Fault::Untrusted(_))) {
        Fault::Untrusted(why)
    } else {
        Fault::Away(why)
    }
}

/// Connects to one member, step by step, so that the step that fails names the reason: address, certificate, user, majority. Each
/// step ends by `deadline`.
async fn reach(config: &EtcdConfig, endpoint: &str, deadline: Instant) -> Result<Client, Fault> {
    let member = config.member(endpoint).map_err(Fault::Config)?;
    let address = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).trim_end_matches('/');
    let addresses = match timeout_at(deadline, lookup_host(address)).await {
        Err(_) => return Err(Fault::Away("nobody says which address the name has".to_owned())),
        Ok(Err(err)) => return Err(Fault::Away(err.to_string())),
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
    };
    match timeout_at(deadline, TcpStream::connect(&*addresses)).await {
        Err(_) => return Err(Fault::Away("no answer to a TCP connection".to_owned())),
        Ok(Err(err)) => return Err(Fault::Away(err.to_string())),
        Ok(Ok(stream)) => drop(stream),
    }
    let channel = Channel::Tonic(member.connect_lazy());
    let connected = timeout_at(deadline, Client::from_channel(channel, Some(config.options()))).await;
    let mut client = match connected {
        Err(_) => return Err(silent(config, "a TCP connection was taken, and then nothing was said")),
        Ok(result) => result.map_err(|err| first_fault(&err, config))?,
    };
    // Linearised: a member without a majority does not answer it.
    let options = GetOptions::new().with_keys_only();
    match timeout_at(deadline, client.get(format!("{}idx/gen", config.prefix), Some(options))).await {
        Err(_) => Err(silent(
            config,
            "it took the connection and gives no answer: it may have lost the majority of its cluster",
        )),
        Ok(result) => result.map(|_| client).map_err(|err| first_fault(&err, config)),
    }
}

/// What an error means at the first word. With TLS 1.3 a node's certificate is judged after the handshake is over for the node:
/// the connection may be closed before the alert that says why is read.
fn first_fault(err: &Error, config: &EtcdConfig) -> Fault {
    let hint = match &config.tls {
        Some(TlsFiles { own: None, .. }) => "it may ask for a certificate of this node's, and none is given",
        Some(TlsFiles { own: Some(_), .. }) => "it may not take this node's certificate",
        None => return fault(err, config),
    };
    match fault(err, config) {
        Fault::Away(why)
            if ["closed", "reset", "broken pipe"].iter().any(|end| why.to_lowercase().contains(end)) =>
        {
            Fault::Refused(format!("it took a TLS connection and closed it: {hint} ({why})"))
        }
        other => other,
    }
}

fn silent(config: &EtcdConfig, why: &str) -> Fault {
    let hint = if config.tls.is_none() { " (or it speaks TLS, and no certificate is given)" } else { "" };
    Fault::Away(format!("{why}{hint}"))
}

/// What an error of etcd's or of the connection means.
pub(super) fn fault(err: &Error, config: &EtcdConfig) -> Fault {
    let text = chain(err);
    let Error::GRpcStatus(status) = err else { return by_text(text, config) };
    let said = status.message().to_owned();
    let user = config.user.as_ref().map_or("no user", |(user, _)| user.as_str());
    match status.code() {
        Code::OutOfRange if said.contains("compacted") => Fault::Compacted,
        Code::InvalidArgument if said.contains("invalid user ID or password") => {
            Fault::Refused(format!("user `{user}` or its password is wrong ({said})"))
        }
        Code::InvalidArgument if said.contains("user name is empty") => {
            Fault::Refused(format!("it asks for a user and a password ({said})"))
        }
        Code::FailedPrecondition if said.contains("authentication is not enabled") => {
            Fault::Refused(format!("user `{user}` was given, and it asks for none ({said})"))
        }
        Code::PermissionDenied => {
            Fault::Refused(format!("`{user}` may not read and write below {} ({said})", config.prefix))
        }
        Code::Unauthenticated => Fault::Refused(format!("`{user}` is not let in ({said})")),
        _ => by_text(text, config),
    }
}

/// TLS errors come as texts only. An alert is the other side's word; everything else about a certificate is ours.
fn by_text(text: String, config: &EtcdConfig) -> Fault {
    let lower = text.to_lowercase();
    if lower.contains("alert") {
        return Fault::Refused(format!("it does not take this node's certificate ({text})"));
    }
    if lower.contains("certificate") || lower.contains("not valid for name") {
        return Fault::Untrusted(text);
    }
    if config.tls.is_none() && ["http2", "h2 protocol", "closed"].iter().any(|sign| lower.contains(sign)) {
        return Fault::Away(format!("{text} (does it speak TLS?)"));
    }
    Fault::Away(text)
}

/// An error with its sources, each once.
pub(super) fn chain(err: &Error) -> String {
    let mut text = match err {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut source: Option<&dyn std::error::Error> = match err {
        Error::GRpcStatus(status) => std::error::Error::source(status),
        Error::TransportError(err) => std::error::Error::source(err),
        _ => None,
    };
    while let Some(err) = source {
        let more = err.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = err.source();
    }
    text
}

/// Runs one call on the connection. A member that fails is left; `again` says that the call may be made a second time, on another.
pub(super) async fn call<T, F>(
    sessions: &Sessions,
    again: Again,
    run: impl Fn(Client) -> F,
) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Error>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        let session =
            timeout_at(deadline, sessions.get()).await.unwrap_or_else(|_| Err(late("no connection")))?;
        // A member that says nothing leaves time for another.
        let patience = (Instant::now() + DEADLINE / 2).min(deadline);
        let result = match timeout_at(patience, run(session.client.clone())).await {
            Ok(result) => result.map_err(|err| fault(&err, &sessions.config)),
            Err(_) => Err(late(&session.endpoint)),
        };
        let Err(Fault::Away(why)) = result else { return result };
        sessions.drop(&session).await;
        tracing::debug!(endpoint = session.endpoint, why, "etcd member left");
        let over = Instant::now() + DEADLINE / 10 > deadline;
        if again == Again::No || over {
            return Err(Fault::Away(format!("{}: {why}", session.endpoint)));
        }
    }
}

/// Whether a call whose fate is unknown may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It changes nothing, or the same.
    Yes,
    /// The caller looks first what became of it.
    No,
}

fn late(what: &str) -> Fault {
    Fault::Away(format!("{what}: no answer in time"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::etcd::Password;

    /// With a deadline far below the usual one, no step may wait longer than a busy machine makes it.
    const SOON: Duration = Duration::from_millis(100);

    /// What is said of somebody who takes connections and never says a word, and how long that took.
    fn said_of_the_mute(config: impl FnOnce(EtcdConfig) -> EtcdConfig) -> (Fault, Duration) {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(EtcdConfig::new([mute.local_addr().unwrap().to_string()]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = Instant::now();
        let said = runtime.block_on(async { connect(&config, Instant::now() + SOON).await });
        (said.map(|session| session.endpoint).unwrap_err(), began.elapsed())
    }

    #[test]
    fn whatever_is_wrong_is_said_by_the_deadline_with_what_was_tried() {
        let user =
            |config| EtcdConfig { user: Some(("berth".to_owned(), Password::new("guessed"))), ..config };
        let plain = |config| config;
        for (said, took) in [said_of_the_mute(plain), said_of_the_mute(user)] {
            let Fault::Away(why) = &said else { panic!("{said:?}") };
            let is_said = ["nothing was said", "gives no answer"].iter().any(|words| why.contains(words));
            assert!(why.contains("127.0.0.1:") && is_said, "{why}");
            assert!(took >= SOON && took < MEMBER, "{took:?}");
        }
        // What needs no answer is said at once.
        let no_file = |config| {
            let tls = TlsFiles { ca: PathBuf::from("/nonexistent/ca.pem"), own: None, server_name: None };
            EtcdConfig { tls: Some(tls), ..config }
        };
        let (said, took) = said_of_the_mute(no_file);
        assert!(matches!(&said, Fault::Config(why) if why.contains("ca.pem")), "{said:?}");
        assert!(took < MEMBER, "{took:?}");
    }
}
