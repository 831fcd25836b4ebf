//! Addresses, certificates and passwords, right and wrong: each is told apart, in time.

use std::time::{Duration, Instant};

use berth_integration::{Debian, Host, host_test};
use berth_overlay::cluster::etcd::{DEADLINE, EtcdConfig, Password, TlsFiles};
use berth_overlay::cluster::{Cluster, ClusterError};

use super::etcd::{Etcd, cluster, etcd_test, on};
use super::records::network;

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

/// What a client with `config` is told when it creates a network.
fn told(host: &Host, config: EtcdConfig) -> Result<(), ClusterError> {
    let cluster = cluster(config);
    let began = Instant::now();
    let answer = on(host, async { cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await });
    assert!(began.elapsed() < DEADLINE + SLACK, "{answer:?} after {:?}", began.elapsed());
    answer
}

#[test]
fn a_wrong_address_is_said_with_what_was_tried() {
    etcd_test(Debian::V12, |host, etcd| {
        let text = |endpoints: &[&str]| {
            told(host, EtcdConfig::new(endpoints.iter().copied())).unwrap_err().to_string()
        };
        let refused = text(&["127.0.0.1:1"]);
        assert!(
            refused.starts_with("etcd at 127.0.0.1:1 does not answer: 127.0.0.1:1: Connection refused"),
            "{refused}"
        );
        // Nobody answers on the uplink.
        let silent = text(&["192.0.2.9:2379"]);
        assert!(silent.contains("192.0.2.9:2379: "), "{silent}");
        let name = text(&["no-such-host.invalid:2379"]);
        assert!(name.contains("no-such-host.invalid:2379: ") && !name.contains("TCP"), "{name}");
        let both = text(&["127.0.0.1:1", "192.0.2.9:2379"]);
        assert!(
            both.contains("127.0.0.1:1: Connection refused") && both.contains("192.0.2.9:2379: "),
            "{both}"
        );
        // Something else listens there.
        let other = host.inside(|| std::net::TcpListener::bind("127.0.0.1:4444").unwrap());
        let mute = text(&["127.0.0.1:4444"]);
        assert!(mute.contains("127.0.0.1:4444: "), "{mute}");
        drop(other);
        // One of several is enough.
        told(host, EtcdConfig::new(["127.0.0.1:1", "192.0.2.9:2379", &etcd.endpoint])).unwrap();
    });
}

#[test]
fn a_wrong_password_is_told_from_a_missing_one_and_from_a_missing_right() {
    etcd_test(Debian::V12, |host, etcd| {
        let as_user = |user: &str, password: &str| EtcdConfig {
            user: Some((user.to_owned(), Password::new(password))),
            ..EtcdConfig::new([etcd.endpoint.clone()])
        };
        let text = |config: EtcdConfig| match told(host, config) {
            Err(err @ ClusterError::Refused { .. }) => err.to_string(),
            other => panic!("{other:?}"),
        };
        let none_asked = text(as_user("berth", "right"));
        assert!(none_asked.contains("user `berth` was given, and it asks for none"), "{none_asked}");
        for line in [
            "user add root:secret",
            "user add berth:right",
            "user add nobody:right",
            "user grant-role root root",
            "role add berth",
            "role grant-permission berth --prefix=true readwrite /berth/v1/",
            "user grant-role berth berth",
            "auth enable",
        ] {
            etcd.ctl(&line.split(' ').collect::<Vec<_>>());
        }
        told(host, as_user("berth", "right")).unwrap();
        let wrong = text(as_user("berth", "wrong"));
        assert!(wrong.contains("user `berth` or its password is wrong"), "{wrong}");
        assert!(!wrong.contains("`wrong`"), "a password is not printed: {wrong}");
        let unknown = text(as_user("stranger", "right"));
        assert!(unknown.contains("user `stranger` or its password is wrong"), "{unknown}");
        let missing = text(EtcdConfig::new([etcd.endpoint.clone()]));
        assert!(missing.contains("asks for a user and a password"), "{missing}");
        let no_right = text(as_user("nobody", "right"));
        assert!(no_right.contains("`nobody` may not read and write below /berth/v1/"), "{no_right}");
    });
}

/// Two authorities, certificates of etcd and of nodes, made by `openssl` in `DIR/pki`.
pub(super) const PKI: &str = "
mkdir -p pki && cd pki
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout $1.key -out $1.pem -subj /CN=$1
}
certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $2.key -out $2.csr -subj /CN=$2
  printf 'subjectAltName=%s\\nextendedKeyUsage=serverAuth,clientAuth\\n' $3 > $2.ext
  openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -days ${4:-2} -extfile $2.ext -out $2.pem
}
authority ca; authority other
certificate ca etcd IP:127.0.0.1,DNS:etcd.example
certificate ca elsewhere DNS:elsewhere.example
certificate ca node DNS:node
certificate other stranger DNS:node
";

#[test]
fn a_wrong_certificate_is_told_from_a_wrong_authority_and_a_missing_one() {
    host_test(|host| {
        host.run(&format!("cd {} && ( {PKI} ) 2>&1", host.dir().display()));
        let pki = host.dir().join("pki");
        let file = |name: &str| pki.join(name);
        let path = |name: &str| file(name).to_str().unwrap().to_owned();
        let server = |name: &str| {
            let certificates =
                ["--client-cert-auth", "--trusted-ca-file", &path("ca.pem")].map(str::to_owned);
            let own = [
                "--cert-file".to_owned(),
                path(&format!("{name}.pem")),
                "--key-file".to_owned(),
                path(&format!("{name}.key")),
            ];
            [certificates.to_vec(), own.to_vec()].concat()
        };
        let mut ctl: Vec<String> = Vec::new();
        for (option, name) in [("--cacert", "ca.pem"), ("--cert", "node.pem"), ("--key", "node.key")] {
            ctl.extend([option.to_owned(), path(name)]);
        }
        let tls = |ca: &str, own: Option<&str>| EtcdConfig {
            tls: Some(TlsFiles {
                ca: file(&format!("{ca}.pem")),
                own: own.map(|own| (file(&format!("{own}.pem")), file(&format!("{own}.key")))),
                server_name: None,
            }),
            ..EtcdConfig::new(["127.0.0.1:2379"])
        };

        let etcd = Etcd::secure(host, &server("etcd"), &ctl);
        told(host, tls("ca", Some("node"))).unwrap();
        let result = |config: EtcdConfig| {
            let error = told(host, config).unwrap_err();
            println!("{error}");
            error
        };
        assert!(matches!(result(tls("other", Some("node"))), ClusterError::Untrusted { .. }));
        assert!(matches!(result(tls("ca", Some("stranger"))), ClusterError::Refused { .. }));
        assert!(matches!(result(tls("ca", None)), ClusterError::Refused { .. }));
        // Without TLS nothing of use is answered; that it may want TLS is said.
        match result(EtcdConfig::new(["127.0.0.1:2379"])) {
            ClusterError::Away { why, .. } => assert!(why.contains("TLS"), "{why}"),
            other => panic!("{other:?}"),
        }
        drop(etcd);

        let mut skip: Vec<String> = ctl.clone();
        skip.push("--insecure-skip-tls-verify".to_owned());
        let etcd = Etcd::secure(host, &server("elsewhere"), &skip);
        assert!(matches!(result(tls("ca", Some("node"))), ClusterError::Untrusted { .. }));
        let mut named = tls("ca", Some("node"));
        named.tls.as_mut().unwrap().server_name = Some("elsewhere.example".to_owned());
        told(host, named).unwrap();
        drop(etcd);

        // A file that is missing, or is something else, is named before anything is asked.
        for (ca, own, what) in [("none", None, "none.pem"), ("ca", Some("ca.pem"), "ca.pem.pem")] {
            let error = berth_overlay::cluster::etcd::EtcdCluster::new(tls(ca, own)).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        std::fs::remove_dir_all(&pki).unwrap();
    });
}
