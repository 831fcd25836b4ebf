//! Methods by name, and how a request becomes a call.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::workers::{TimedOut, Workers};

/// The largest body that is read, bytes. dockerd's largest is a container with every port published: 65,535 times about
/// 90 bytes, twice.
pub const BODY_LIMIT: usize = 16 << 20;

/// What replies are marked as. No caller looks.
pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// How long an activation is held up. dockerd gives up on a plugin that does not answer.
const ACTIVATION_DEADLINE: Duration = Duration::from_secs(5);

/// How long a peer may take to send its body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The reply of a method that says nothing: `{}`. An empty body would be an error to dockerd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Why a call is refused: the text a person reads at the end of `docker: Error response from daemon: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Takes the text; line breaks become `; `, because the text is shown in one line.
    pub fn new(text: impl AsRef<str>) -> Self {
        let lines: Vec<&str> = text.as_ref().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self(lines.join("; "))
    }

    /// Takes an error with its causes.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Serialize)]
struct ErrorReply<'a> {
    #[serde(rename = "Err")]
    err: &'a str,
    #[serde(rename = "Error")]
    error: &'a str,
}

#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(rename = "Implements")]
    implements: &'a [&'static str],
}

/// A method's outcome as JSON.
type Outcome = Result<Vec<u8>, Refusal>;
type Handler = dyn Fn(&[u8]) -> Outcome + Send + Sync;

struct Entry {
    /// None: it does not block and is called in place.
    deadline: Option<Duration>,
    handler: std::sync::Arc<Handler>,
}

/// What one socket answers.
#[derive(Default)]
pub struct Plugin {
    implements: Vec<&'static str>,
    methods: HashMap<&'static str, Entry>,
    on_activate: Option<std::sync::Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("implements", &self.implements).finish_non_exhaustive()
    }
}

impl Plugin {
    /// A plugin that answers `/Plugin.Activate` with these interfaces, for instance `NetworkDriver`.
    pub fn implements(interfaces: &[&'static str]) -> Self {
        Self { implements: interfaces.to_vec(), ..Self::default() }
    }

    /// Calls `tell` at each activation, before it is answered: it means that dockerd has (re)started. It may block for a
    /// moment, and must not ask dockerd.
    #[must_use]
    pub fn on_activate(mut self, tell: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_activate = Some(std::sync::Arc::new(tell));
        self
    }

    /// A method with arguments. `handler` may block, for at most `deadline` in the eyes of the caller.
    #[must_use]
    pub fn call<A, R>(
        self,
        name: &'static str,
        deadline: Duration,
        handler: impl Fn(A) -> Result<R, Refusal> + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
    {
        self.entry(name, Some(deadline), move |body| encode(&handler(decode(body)?)?))
    }

    /// A method without arguments that may block. Whatever the body is, it says nothing.
    #[must_use]
    pub fn ask<R: Serialize>(
        self,
        name: &'static str,
        deadline: Duration,
        handler: impl Fn() -> Result<R, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.entry(name, Some(deadline), move |_| encode(&handler()?))
    }

    /// A method whose answer is always the same. dockerd asks for capabilities inside its own start: this waits for
    /// nothing, not even for a thread.
    #[must_use]
    pub fn constant<R: Serialize + Send + Sync + 'static>(self, name: &'static str, reply: R) -> Self {
        self.entry(name, None, move |_| encode(&reply))
    }

    fn entry(
        mut self,
        name: &'static str,
        deadline: Option<Duration>,
        handler: impl Fn(&[u8]) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.methods.insert(name, Entry { deadline, handler: std::sync::Arc::new(handler) });
        self
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        workers: &Workers,
        method: &Method,
        path: &str,
        body: Body,
    ) -> Response {
        let name = path.strip_prefix('/').unwrap_or(path);
        let known = self.methods.get(name);
        if known.is_none() && name != "Plugin.Activate" {
            let text = format!("this plugin has no method `{}`", shortened(name));
            return reply(StatusCode::NOT_FOUND, error_json(&text));
        }
        if method != Method::POST {
            let text = format!("`{name}` is called with POST");
            return reply(StatusCode::METHOD_NOT_ALLOWED, error_json(&text));
        }
        let started = Instant::now();
        let outcome = match known {
            None => self.activate(workers).await,
            Some(entry) => self.run(workers, entry, body).await,
        };
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(json) => {
                tracing::debug!(method = name, took_ms, "answered");
                reply(StatusCode::OK, json)
            }
            Err(refusal) => {
                tracing::warn!(method = name, took_ms, why = %refusal, "refused");
                reply(StatusCode::INTERNAL_SERVER_ERROR, error_json(&refusal.0))
            }
        }
    }

    async fn activate(&self, workers: &Workers) -> Outcome {
        if let Some(tell) = &self.on_activate {
            let tell = std::sync::Arc::clone(tell);
            // Activated it is, whatever became of that: dockerd would give the plugin up.
            if let Err(why) = workers.run(ACTIVATION_DEADLINE, move || tell()).await {
                tracing::warn!(?why, "activated before everybody was told");
            }
        }
        encode(&Manifest { implements: &self.implements })
    }

    async fn run(&self, workers: &Workers, entry: &Entry, body: Body) -> Outcome {
        let body = read(body).await?;
        let Some(deadline) = entry.deadline else { return (entry.handler)(&body) };
        let handler = std::sync::Arc::clone(&entry.handler);
        let seconds = deadline.as_secs_f32();
        match workers.run(deadline, move || handler(&body)).await {
            Ok(outcome) => outcome,
            Err(TimedOut::Running) => Err(Refusal::new(format!(
                "berth is not done after {seconds} s and goes on with it; try again in a moment"
            ))),
            Err(TimedOut::Queued) => Err(Refusal::new(format!(
                "berth is busy: the call waited {seconds} s for others and was not begun; try again"
            ))),
            Err(TimedOut::Lost) => {
                Err(Refusal::new("berth failed at this call; its log says more, and `berth doctor` may"))
            }
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::new(format!(
            "the request's body broke off, or is larger than {} MB",
            BODY_LIMIT >> 20
        ))),
        Err(_) => Err(Refusal::new("the request's body did not arrive")),
    }
}

fn decode<A: DeserializeOwned>(body: &[u8]) -> Result<A, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::new(
            "the request is empty: the engine lost its connection and tried again without the request; repeat the command",
        ));
    }
    serde_json::from_slice(body).map_err(|err| Refusal::new(format!("the request cannot be read: {err}")))
}

fn encode(reply: &impl Serialize) -> Outcome {
    serde_json::to_vec(reply).map_err(|err| Refusal::new(format!("the reply cannot be written: {err}")))
}

fn error_json(text: &str) -> Vec<u8> {
    let json = serde_json::to_vec(&ErrorReply { err: text, error: text });
    json.unwrap_or_else(|_| br#"{"Err":"unknown","Error":"unknown"}"#.to_vec())
}

fn reply(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Args {
        name: String,
    }

    fn plugin() -> Plugin {
        Plugin::implements(&["NetworkDriver"])
            .constant("X.Constant", Empty {})
            .ask("X.Ask", Duration::from_secs(60), || Ok(Empty {}))
            .call("X.Call", Duration::from_secs(60), |args: Args| {
                if args.name == "no" { Err(Refusal::new("not\n  this one")) } else { Ok(args.name) }
            })
    }

    async fn say(method: Method, path: &str, body: &str) -> (u16, String) {
        let response = plugin().answer(&Workers::new(2), &method, path, Body::from(body.to_owned())).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), BODY_LIMIT).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_kind_of_request_has_its_answer() {
        let error = |text: &str| serde_json::json!({"Err": text, "Error": text}).to_string();
        for (path, body, expected) in [
            ("/Plugin.Activate", "", (200, r#"{"Implements":["NetworkDriver"]}"#.to_owned())),
            ("/X.Constant", "", (200, "{}".to_owned())),
            ("/X.Constant", "{}", (200, "{}".to_owned())),
            ("/X.Ask", "null", (200, "{}".to_owned())),
            ("/X.Call", r#"{"Name":"a","Unknown":[1]}"#, (200, "\"a\"".to_owned())),
            ("/X.Call", r#"{"Name":"no"}"#, (500, error("not; this one"))),
            ("/X.Other", "{}", (404, error("this plugin has no method `X.Other`"))),
        ] {
            assert_eq!(say(Method::POST, path, body).await, expected, "{path} {body}");
        }
        for body in ["", " \n", "{", "[]", r#"{"Name":5}"#, "{}"] {
            let (status, text) = say(Method::POST, "/X.Call", body).await;
            assert!(status == 500 && text.contains("the request "), "{body:?}: {status} {text}");
        }
        assert_eq!(say(Method::GET, "/X.Ask", "").await.0, 405);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_body_without_end_is_refused() {
        let body = Body::from(vec![b' '; BODY_LIMIT + 1]);
        let response = plugin().answer(&Workers::new(1), &Method::POST, "/X.Call", body).await;
        assert_eq!(response.status(), 500);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_hanging_call_is_answered_at_its_deadline() {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let plugin = Plugin::implements(&[]).ask("X.Hang", Duration::from_millis(30), move || {
            let _ = held.lock().unwrap().recv();
            Ok(Empty {})
        });
        let response = plugin.answer(&Workers::new(1), &Method::POST, "/X.Hang", Body::empty()).await;
        assert_eq!(response.status(), 500);
        let_go.send(()).unwrap();
    }
}
