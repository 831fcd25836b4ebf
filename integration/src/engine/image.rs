//! An image of two megabytes: busybox, with a web server that says which container it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Host;

/// What the image is called. The domain can belong to nobody (RFC 2606).
pub const IMAGE: &str = "registry.invalid/berth/busybox:1";

/// The programs in the image.
pub const APPLETS: [&str; 11] =
    ["cat", "hostname", "httpd", "ip", "nc", "ping", "ping6", "sh", "sleep", "timeout", "wget"];

/// The container's program: a web server. Without a page it runs [`PAGE`].
pub(super) const PROGRAM: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/www"];

/// Says which container this is: `$NAME` where it is set, for `ctr` sets no host name.
const PAGE: &str = r#"#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
printf %s "${NAME:-$(hostname)}"
"#;

/// Packs the root of a container and returns the archive.
pub fn layer(host: &Host, dir: &Path) -> PathBuf {
    let root = dir.join("image-root");
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "www/cgi-bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let page = root.join("www/cgi-bin/index.cgi");
    fs::write(&page, PAGE).unwrap();
    fs::set_permissions(&page, Permissions::from_mode(0o755)).unwrap();
    let archive = dir.join("layer.tar");
    host.cmd("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").run();
    archive
}

/// Packs the image in the layout of the OCI image specification 1.0 and returns the archive.
pub fn archive(host: &Host, dir: &Path) -> PathBuf {
    let layout = dir.join("image");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let layer = add_blob(
        host,
        &blobs,
        &fs::read(layer(host, dir)).unwrap(),
        "application/vnd.oci.image.layer.v1.tar",
    );
    let platform = json!({"architecture": architecture(), "os": "linux"});
    let config = json!({
        "architecture": platform["architecture"],
        "os": platform["os"],
        "config": {"Env": ["PATH=/bin"], "Cmd": PROGRAM},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = add_json(host, &blobs, &config, "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = add_json(host, &blobs, &manifest, kind);
    manifest["platform"] = platform;
    manifest["annotations"] = json!({"io.containerd.image.name": IMAGE});
    fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
    let archive = dir.join("image.tar");
    host.cmd("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).arg(".").run();
    archive
}

fn add_json(host: &Host, blobs: &Path, value: &Value, kind: &str) -> Value {
    add_blob(host, blobs, value.to_string().as_bytes(), kind)
}

/// Stores a blob under its digest and returns its descriptor.
fn add_blob(host: &Host, blobs: &Path, bytes: &[u8], kind: &str) -> Value {
    let printed = host.cmd("sha256sum").stdin(bytes).run();
    let digest = printed.split_whitespace().next().expect("sha256sum prints a digest");
    fs::write(blobs.join(digest), bytes).unwrap();
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// The machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
