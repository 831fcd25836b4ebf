//! The server as a peer sees it: bytes on a socket.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_plugin_http::{Empty, Inherited, Plugin, Socket, Workers, serve};

/// Serves `plugin` while `client` runs on another thread.
fn with_server(plugin: Plugin, client: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let of_client = path.clone();
    runtime.block_on(async {
        let socket = Socket::open(&path, &mut Inherited::default()).unwrap();
        let (done, stop) = tokio::sync::oneshot::channel::<()>();
        let client = std::thread::spawn(move || {
            client(&of_client);
            drop(done);
        });
        serve(socket, plugin, Workers::new(4), async { drop(stop.await) }).await.unwrap();
        client.join().unwrap();
    });
    assert!(!path.exists(), "a stopped server leaves no socket");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn plugin() -> Plugin {
    Plugin::implements(&["VolumeDriver"]).ask("X.Ask", Duration::from_secs(60), || Ok(Empty {}))
}

#[test]
fn dockerds_request_without_a_content_type_is_answered() {
    with_server(plugin(), |path| {
        let request = "POST /Plugin.Activate HTTP/1.1\r\nHost: %2Frun%2Fdocker%2Fplugins%2Fp.sock\r\n\
                       Accept: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let text = raw(path, request);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.ends_with(r#"{"Implements":["VolumeDriver"]}"#), "{text}");
    });
}

#[test]
fn what_is_no_http_is_answered_too() {
    with_server(plugin(), |path| {
        assert!(raw(path, "\0\0\0 nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        let text =
            raw(path, "POST /X.Ask HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(text.ends_with("{}"), "{text}");
    });
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_the_server() {
    let keep: Arc<Mutex<Option<UnixStream>>> = Arc::default();
    let inner = Arc::clone(&keep);
    with_server(plugin(), move |path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"POST /X.Ask HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut start = [0_u8; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        // Left open, as dockerd leaves its keep-alive connections.
        *inner.lock().unwrap() = Some(stream);
    });
    drop(keep);
}
