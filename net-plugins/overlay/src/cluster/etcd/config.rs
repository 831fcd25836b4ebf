//! How an etcd is reached.

use std::fmt;
use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Error, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::KEEP_ALIVE;
use super::session::chain;

/// Where berth's records stand, unless told otherwise.
pub const PREFIX: &str = "/berth/v1/";

/// How much etcd may send before it was read, bytes: what comes faster than it is worked off stays with etcd. The client's own 2 MB
/// would be kept for good in pieces of a few hundred bytes.
const WINDOW: u32 = 256 * 1024;

/// How an etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members: `10.0.0.1:2379`, `http://…` or `https://…`. The first that answers is used.
    pub endpoints: Vec<String>,
    /// The user and its password, where etcd asks for one.
    pub user: Option<(String, Password)>,
    /// Certificates, where etcd speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Below which prefix the records stand; it ends in `/`.
    pub prefix: String,
}

/// Files in PEM format. They are read at each connection, so that renewed ones are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that etcd's certificate is of.
    pub ca: PathBuf,
    /// This node's certificate and key, where etcd asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificate, if it is not the one in the endpoint.
    pub server_name: Option<String>,
}

/// A password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password)")
    }
}

impl EtcdConfig {
    /// Members at `endpoints`, without TLS, user and password.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, user: None, tls: None, prefix: PREFIX.to_owned() }
    }

    /// How people know it.
    pub(super) fn name(&self) -> String {
        let plain = |endpoint: &String| match endpoint.split_once("://") {
            Some((_, rest)) => rest.to_owned(),
            None => endpoint.clone(),
        };
        format!("etcd at {}", self.endpoints.iter().map(plain).collect::<Vec<_>>().join(", "))
    }

    /// What is wrong with it, before anything is asked.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("no endpoint is given".to_owned());
        }
        for endpoint in &self.endpoints {
            let secure = endpoint.starts_with("https://");
            if endpoint.starts_with("http://") && self.tls.is_some() {
                return Err(format!("{endpoint} is without TLS, and certificates are given: write https://"));
            }
            if secure && self.tls.is_none() {
                return Err(format!("{endpoint} speaks TLS: give the certificate of its authority"));
            }
            let rest = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
            let port = rest.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if endpoint.contains("://") && !secure && !endpoint.starts_with("http://")
                || port.is_none_or(|port| port.parse::<u16>().is_err())
            {
                return Err(format!(
                    "`{endpoint}` is no endpoint: HOST:PORT, http://HOST:PORT or https://HOST:PORT"
                ));
            }
        }
        Ok(())
    }

    /// Whether the certificates can be read.
    pub(super) fn certificates(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.options().map(drop))
    }

    /// What goes with each call.
    pub(super) fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new()
            // A member that is cut off from the others ends its watches and says so.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        match &self.user {
            Some((user, Password(password))) => options.with_user(user, password),
            None => options,
        }
    }

    /// How one of the endpoints is connected to, with the certificates as they are now.
    pub(super) fn member(&self, endpoint: &str) -> Result<Endpoint, String> {
        let scheme = if self.tls.is_some() { "https://" } else { "http://" };
        let uri = if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}{endpoint}") };
        let wrong = |err| chain(&Error::TransportError(err));
        let mut member = Endpoint::from_shared(uri)
            .map_err(wrong)?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if let Some(tls) = &self.tls {
            member = member.tls_config(tls.options()?).map_err(wrong)?;
        }
        Ok(member)
    }
}

impl TlsFiles {
    fn options(&self) -> Result<TlsOptions, String> {
        let Self { ca, own, server_name } = self;
        let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(pem(ca, "CERTIFICATE")?));
        if let Some((certificate, key)) = own {
            options = options
                .identity(Identity::from_pem(pem(certificate, "CERTIFICATE")?, pem(key, "PRIVATE KEY")?));
        }
        if let Some(name) = server_name {
            options = options.domain_name(name);
        }
        Ok(options)
    }
}

fn pem(path: &Path, what: &str) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|err| format!("cannot read {}: {err}", path.display()))?;
    let found = String::from_utf8_lossy(&text).contains(&format!("{what}-----"));
    if found { Ok(text) } else { Err(format!("{} has no {what} in PEM format", path.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_cannot_be_are_refused_before_anything_is_asked() {
        for good in ["10.0.0.1:2379", "http://etcd.example:2379", "[fd00::1]:2379", "localhost:2379"] {
            assert_eq!(EtcdConfig::new([good]).check(), Ok(()), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1:x",
            ":2379",
            "ftp://10.0.0.1:2379",
            "https://10.0.0.1:2379",
            "host:70000",
        ] {
            assert!(EtcdConfig::new([bad]).check().is_err(), "{bad}");
        }
        assert!(EtcdConfig::new([""; 0]).check().is_err());
    }

    #[test]
    fn a_password_is_not_printed() {
        let config =
            EtcdConfig { user: Some(("berth".into(), Password::new("hunter2"))), ..EtcdConfig::new(["a:1"]) };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
