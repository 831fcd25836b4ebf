//! The real binary killed, and failed, at its system calls: whatever became of the call, a DEL and a collection later the
//! host is as before.
//!
//! Every test sweeps one set of calls of ADD or DEL from the first to the last.

use std::time::Duration;

use berth_integration::{Call, Fault, Host, Injection, Snapshot, eventually, host_test, sweep};

use crate::common::{Net, collect, tcp};

/// Sets of calls that are swept apart, so that tests run side by side. Together: all by which a call can change anything.
const MESSAGES: &[&str] = &["sendmsg", "sendto", "recvmsg", "recvfrom"];
const FILES: &[&str] = &["openat", "unlink", "rename", "ftruncate", "flock", "fcntl"];
const WRITES: &[&str] = &["write", "pwrite64", "fdatasync", "fsync"];
const PROCESS: &[&str] = &["setns", "clone3", "clone", "socket", "bind", "mmap", "execve", "futex"];

/// Requires that the host is as before.
#[track_caller]
fn converged(host: &Host, before: &Snapshot, injection: &Injection) {
    // Namespaces and links go in the kernel's own time.
    eventually(Duration::from_secs(5), || match before.difference(&Snapshot::of(host)) {
        same if same.is_empty() => Ok(()),
        left => Err(format!(
            "fault {} at `{}`: the host is not as before (- gone, + left):\n{left}",
            injection.when(),
            injection.hit()
        )),
    });
}

/// ADD on a host where nothing is yet, so that making the network is swept too.
fn sweep_add(fault: Fault, syscalls: &[&str]) {
    host_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let faults = sweep(host, fault, syscalls, |injection| {
            let container = host.container("a");
            let call = net.publishing(&container, tcp(8080, 80));
            let ran = call.clone().inject(injection).cmd("ADD").output();
            if !ran.status.success() && injection.when() % 2 == 0 {
                // A runtime may try again at once; what was killed after its last change is attached.
                let again = call.cmd("ADD").output();
                let is_done = again.stdout.contains("is attached already");
                assert!(again.status.success() || is_done, "{}: {ran}\nand again: {again}", injection.hit());
                must_succeed(&call, "DEL", injection);
            }
            must_succeed(&call, "DEL", injection);
            drop(container);
            collect(host);
            converged(host, &before, injection);
        });
        assert!(faults > 0, "no call of {syscalls:?} was hit");
    });
}

/// DEL beside a container that is not to notice.
fn sweep_del(fault: Fault, syscalls: &[&str]) {
    host_test(|host| {
        let empty = Snapshot::of(host);
        let net = Net::new(host, 1);
        let other = net.publish("other", tcp(8081, 80));
        let before = Snapshot::of(host);
        let faults = sweep(host, fault, syscalls, |injection| {
            let container = host.container("a");
            let call = net.publishing(&container, tcp(8080, 80));
            must_succeed(&call, "ADD", injection);
            call.clone().inject(injection).cmd("DEL").output();
            must_succeed(&call, "DEL", injection);
            drop(container);
            collect(host);
            converged(host, &before, injection);
            assert_eq!(host.ping(other.v4(), 1), 1, "fault {} at `{}`", injection.when(), injection.hit());
        });
        assert!(faults > 0, "no call of {syscalls:?} was hit");
        other.checked().check().ok();
        other.leave();
        collect(host);
        empty.assert_same(&Snapshot::of(host));
    });
}

#[track_caller]
fn must_succeed(call: &Call<'_>, command: &str, injection: &Injection) {
    let ran = call.cmd(command).output();
    assert!(
        ran.status.success(),
        "after fault {} at `{}`, {command}: {ran}",
        injection.when(),
        injection.hit()
    );
}

macro_rules! sweeps {
    ($($name:ident: $sweep:ident($fault:expr, $set:expr);)*) => {
        $(
            #[test]
            fn $name() {
                $sweep($fault, $set);
            }
        )*
    };
}

sweeps! {
    an_add_killed_at_any_message_leaves_nothing: sweep_add(Fault::Kill, MESSAGES);
    an_add_killed_at_any_file_leaves_nothing: sweep_add(Fault::Kill, FILES);
    an_add_killed_at_any_write_leaves_nothing: sweep_add(Fault::Kill, WRITES);
    an_add_killed_at_any_thread_or_socket_leaves_nothing: sweep_add(Fault::Kill, PROCESS);
    a_del_killed_at_any_message_leaves_nothing: sweep_del(Fault::Kill, MESSAGES);
    a_del_killed_at_any_file_leaves_nothing: sweep_del(Fault::Kill, FILES);
    a_del_killed_at_any_write_leaves_nothing: sweep_del(Fault::Kill, WRITES);
    a_del_killed_at_any_thread_or_socket_leaves_nothing: sweep_del(Fault::Kill, PROCESS);
    an_add_whose_messages_fail_leaves_nothing: sweep_add(Fault::Error("ENOMEM"), &["sendmsg", "sendto"]);
    an_add_whose_answers_fail_leaves_nothing: sweep_add(Fault::Error("EIO"), &["recvmsg", "recvfrom"]);
    an_add_that_is_interrupted_leaves_nothing: sweep_add(Fault::Error("EINTR"), &["sendmsg", "sendto", "recvfrom", "recvmsg", "poll", "ppoll"]);
    an_add_whose_disk_is_full_at_any_write_leaves_nothing: sweep_add(Fault::Error("ENOSPC"), WRITES);
    an_add_whose_disk_breaks_at_any_write_leaves_nothing: sweep_add(Fault::Error("EIO"), WRITES);
    an_add_whose_files_do_not_open_leaves_nothing: sweep_add(Fault::Error("EIO"), &["openat"]);
    an_add_without_memory_or_threads_leaves_nothing: sweep_add(Fault::Error("ENOMEM"), &["setns", "clone3", "clone", "socket", "bind"]);
    a_del_whose_messages_fail_leaves_nothing: sweep_del(Fault::Error("ENOMEM"), &["sendmsg", "sendto"]);
    a_del_whose_answers_fail_leaves_nothing: sweep_del(Fault::Error("EIO"), &["recvmsg", "recvfrom"]);
    a_del_that_is_interrupted_leaves_nothing: sweep_del(Fault::Error("EINTR"), &["sendmsg", "sendto", "recvfrom", "recvmsg", "poll", "ppoll"]);
    a_del_whose_disk_is_full_at_any_write_leaves_nothing: sweep_del(Fault::Error("ENOSPC"), WRITES);
    a_del_whose_disk_breaks_at_any_write_leaves_nothing: sweep_del(Fault::Error("EIO"), WRITES);
    a_del_whose_files_do_not_open_leaves_nothing: sweep_del(Fault::Error("EIO"), &["openat"]);
    a_del_without_memory_or_threads_leaves_nothing: sweep_del(Fault::Error("ENOMEM"), &["clone3", "clone", "socket", "bind"]);
}
