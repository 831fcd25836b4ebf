//! An image of two megabytes: busybox, with a web server that says which container it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Host;

/// What the image is called. The domain can belong to nobody (RFC 2606).
pub const IMAGE: &str = "registry.invalid/berth/busybox:1";

/// The programs in the image.
pub const APPLETS: [&str; 30] = [
    "cat", "chmod", "chown", "cp", "dd", "df", "echo", "hostname", "httpd", "id", "ip", "ls", "mkdir",
    "mount", "mv", "nc", "nslookup", "ping", "ping6", "rm", "sh", "sleep", "stat", "sync", "tar", "test",
    "timeout", "touch", "wc", "wget",
];

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
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "var/lib/mysql", "www/cgi-bin"] {
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

/// Packs images in the layout that `docker save` writes and returns the archive. They differ in their names and programs only,
/// and end by a signal that no process can ignore, so that nothing waits for the ten seconds that dockerd grants.
pub(super) fn docker_archive(host: &Host, dir: &Path, images: &[(&[&str], &[&str])]) -> PathBuf {
    let layout = dir.join("image");
    fs::create_dir_all(&layout).unwrap();
    fs::rename(layer(host, dir), layout.join("layer.tar")).unwrap();
    let printed = host.cmd("sha256sum").arg(layout.join("layer.tar")).run();
    let digest = printed.split_whitespace().next().expect("sha256sum prints a digest");
    let mut manifest = Vec::new();
    for (names, program) in images {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": program, "StopSignal": "SIGKILL"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let file = format!("{}.json", names[0]);
        fs::write(layout.join(&file), config.to_string()).unwrap();
        let tags: Vec<_> = names.iter().map(|name| format!("{name}:latest")).collect();
        manifest.push(json!({"Config": file, "RepoTags": tags, "Layers": ["layer.tar"]}));
    }
    fs::write(layout.join("manifest.json"), Value::from(manifest).to_string()).unwrap();
    let archive = dir.join("images.tar");
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
