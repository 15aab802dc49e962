//! The door over a real socket, in front of a site that only remembers.

#![expect(clippy::disallowed_methods, reason = "a Unix socket and a token are real files")]

use super::{
    status::{Certificate, Cloud, Dead, DecisionRow, Failing, FilerName, Peer, Resync, RevokedRow, Role, Staging},
    *,
};
use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};
use storage::cloudfs::CloudState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

/// A CloudFS in trouble: what the page looks like then is what matters.
pub(crate) fn troubled() -> Status {
    let primary = Cloud {
        place: "s3://bucket".into(),
        state: CloudState::Resyncing,
        since_ms_ago: 61_000,
        why: Some("160 consecutive failures on 1-1.1".into()),
        failing: Some(Failing { failures: 3, trips_at: 160, since_ms_ago: 2_000, last_ms_ago: 500, pieces: 1 }),
        failures_now: 3,
        failures_total: 171,
        missed_puts: 40,
        missed_deletes: 2,
        oldest_miss_ms: Some(3_600_000),
        reached_by: vec!["ams".into()],
        resync: Some(Resync { rows_left: 42, rows_done: 8, bytes_done: 8 << 20, since_ms: 5_000 }),
        ..Cloud::new("aws", "s3", Role::Standby)
    };
    let secondary = Cloud {
        held_by_operator: true,
        oldest_unprotected_ms: Some(1_500),
        ..Cloud::new("azure", "azure", Role::Active)
    };
    Status {
        filer: FilerName { id: "0000002a".into(), name: "ams".into() },
        cloudfs: "00000000000000ff".into(),
        version: "0.1.0".into(),
        up_ms: 7_200_000,
        epoch: 7,
        active: "azure".into(),
        preferred: "aws".into(),
        absorbs_failure: false,
        why_not: Some("aws is resyncing: 42 rows of its missed-write log are left".into()),
        has_majority: true,
        leader: Some("ams".into()),
        peers: vec![
            Peer {
                id: "0000002a".into(),
                name: "ams".into(),
                this: true,
                leader: true,
                voter: true,
                connected: true,
                ..Peer::default()
            },
            Peer {
                id: "0000002b".into(),
                name: "fra".into(),
                address: "fra:7400".into(),
                voter: true,
                leaving: true,
                heard_ms_ago: Some(12_000),
                last_error: Some("timed out".into()),
                staged_bytes: Some(4_096),
                oldest_unprotected_ms: Some(900_000),
                epoch: Some(6),
                version: Some("0.0.9".into()),
                certificate: Some(Certificate {
                    serial: "4e02".into(),
                    left_ms: 12 * 86_400_000,
                    ends_soon: true,
                    revoked: false,
                }),
                ..Peer::default()
            },
        ],
        clouds: vec![primary, secondary],
        removed_filers: vec!["0000002c".into()],
        revoked: vec![RevokedRow {
            serial: "4f00".into(),
            filer: FilerName { id: "0000002c".into(), name: "old".into() },
        }],
        certificate: Certificate { serial: "4e01".into(), left_ms: 12 * 86_400_000, ends_soon: true, revoked: false },
        dead: Dead { segments: 9, undeleted: 4, why: Some("cloud aws: access denied".into()) },
        staging: Staging { bytes: 3 << 20, bytes_max: 10 << 30, segments: 2, oldest_unprotected_ms: Some(1_500) },
        decisions: vec![DecisionRow {
            epoch: 7,
            ms_ago: 61_000,
            filer: "fra".into(),
            text: "resync of aws began".into(),
            carried: true,
            ballots: vec![],
        }],
        ..Status::default()
    }
}

/// What it was told, and its status where that is not the troubled one.
#[derive(Default)]
pub(crate) struct Remembers(pub Mutex<Vec<String>>, pub Mutex<Option<Status>>);

#[async_trait::async_trait]
impl Steering for Remembers {
    async fn status(&self) -> Status {
        self.1.lock().unwrap().clone().unwrap_or_else(troubled)
    }
    async fn extra_metrics(&self) -> Vec<Extra> {
        vec![("nfs_connections", "Connections of clients", 3.0)]
    }
    async fn failover(&self, cloud: &str, anyway: bool) -> Result<String, Refusal> {
        let how = if anyway { " anyway" } else { "" };
        self.0.lock().unwrap().push(format!("failover {cloud}{how}"));
        match cloud {
            "aws" => Err(Refusal::Rules("aws misses 42 pieces".into())),
            "azure" => Err(Refusal::Rules("azure is active already".into())),
            _ => Err(Refusal::NotFound(format!("no cloud is called {cloud}; the clouds are aws (a) and azure (b)"))),
        }
    }
    async fn failback(&self, anyway: bool) -> Result<String, Refusal> {
        let how = if anyway { " anyway" } else { "" };
        self.0.lock().unwrap().push(format!("failback{how}"));
        Ok("aws is active now".into())
    }
    async fn remove_peer(&self, name: &str) -> Result<String, Refusal> {
        self.0.lock().unwrap().push(format!("remove {name}"));
        if name == "fra/1 ä" {
            Ok(format!("{name} is out"))
        } else {
            Err(Refusal::NotFound(format!("no filer is called {name}")))
        }
    }
    async fn keep_peer(&self, name: &str) -> Result<String, Refusal> {
        self.0.lock().unwrap().push(format!("keep {name}"));
        Ok(format!("{name} goes on"))
    }
    async fn revoke(&self, filer: mesh::FilerId, name: &str, serial: &str) -> Result<String, Refusal> {
        self.0.lock().unwrap().push(format!("revoke {filer} {name} {serial}"));
        match serial {
            "later" => Err(Refusal::Later("no majority".into())),
            _ => Ok(format!("{serial} is refused")),
        }
    }
    async fn use_certificate(&self, serial: &str) -> Result<String, Refusal> {
        self.0.lock().unwrap().push(format!("use {serial}"));
        Ok(format!("{serial} is in use"))
    }
    async fn certificate_of(&self, filer: mesh::FilerId) -> Result<String, Refusal> {
        self.0.lock().unwrap().push(format!("certificate of {filer}"));
        match self.status().await.certificate.serial {
            serial if serial.is_empty() => Err(Refusal::Later("it is silent".into())),
            serial => Ok(serial),
        }
    }
    async fn segments(&self, after: Option<String>, limit: usize) -> Result<Page<SegmentRow>, Refusal> {
        self.0.lock().unwrap().push(format!("segments {after:?} {limit}"));
        Ok(Page {
            rows: vec![SegmentRow { segment: "1-1.1".into(), ..SegmentRow::default() }],
            next: Some("a&b c".into()),
        })
    }
    async fn files(&self, _: Option<String>, _: usize) -> Result<Page<FileRow>, Refusal> {
        Err(Refusal::Later("no majority".into()))
    }
    async fn decisions(&self) -> Result<Vec<DecisionRow>, Refusal> {
        Ok(troubled().decisions)
    }
}

/// The admin socket of a site, until the sender is dropped.
pub(crate) fn served(
    path: &std::path::Path,
    site: Arc<Remembers>,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let socket = AdminSocket::bind(path).unwrap();
    let serving = tokio::spawn(socket.serve(site, async {
        let _ = stopped.await;
    }));
    (stop, serving)
}

#[tokio::test]
async fn the_socket_serves_its_owner_and_vanishes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let site = Arc::new(Remembers::default());
    let client = AdminClient::new(&path);
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));

    let (stop, serving) = served(&path, site.clone());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no cradle is left");
    assert!(matches!(AdminSocket::bind(&path), Err(DoorError::InUse { .. })));

    assert_eq!(client.status().await.unwrap(), troubled());
    assert_eq!(client.decisions().await.unwrap(), troubled().decisions);
    assert_eq!(client.failback(true).await.unwrap(), "aws is active now");
    let refused = client.failover("aws", true).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(Refusal::Rules(why)) if why == "aws misses 42 pieces"),
        "{refused}"
    );
    let unknown = client.failover("the/other 1", false).await;
    assert!(matches!(unknown, Err(ClientError::Refused(Refusal::NotFound(_)))), "{unknown:?}");
    assert_eq!(client.remove_peer("fra/1 ä").await.unwrap(), "fra/1 ä is out");
    assert!(matches!(client.remove_peer("x").await, Err(ClientError::Refused(Refusal::NotFound(_)))));
    assert_eq!(client.keep_peer("fra").await.unwrap(), "fra goes on");
    assert_eq!(client.revoke(mesh::FilerId(0x2b), "fra", "4f00").await.unwrap(), "4f00 is refused");
    assert_eq!(client.use_certificate("4f01").await.unwrap(), "4f01 is in use");
    assert_eq!(client.certificate_of(mesh::FilerId(0x2b)).await.unwrap(), "4e01");
    assert!(matches!(client.files(None, 10).await, Err(ClientError::Refused(Refusal::Later(_)))));
    let next = client.segments(None, 7).await.unwrap().next;
    client.segments(next.as_deref(), ROWS_MAX).await.unwrap();
    assert!(matches!(client.segments(None, 0).await, Err(ClientError::Refused(Refusal::Request(_)))));
    assert!(matches!(client.segments(None, ROWS_MAX + 1).await, Err(ClientError::Refused(Refusal::Request(_)))));
    assert_eq!(
        *site.0.lock().unwrap(),
        [
            "failback anyway",
            "failover aws anyway",
            "failover the/other 1",
            "remove fra/1 ä",
            "remove x",
            "keep fra",
            "revoke 0000002b fra 4f00",
            "use 4f01",
            "certificate of 0000002b",
            "segments None 7",
            "segments Some(\"a&b c\") 1000"
        ]
    );

    drop(stop);
    serving.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_filers_socket_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket that nobody listens on");
    let (_stop, _serving) = served(&path, Arc::default());
    AdminClient::new(&path).status().await.unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(AdminSocket::bind(&file), Err(DoorError::Socket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

async fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> (String, String) {
    ask("GET", address, path, headers).await
}

/// The head and the body of an answer.
async fn ask(method: &str, address: std::net::SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.into())
}

#[tokio::test]
async fn the_port_asks_for_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("admin.token");
    let local = "127.0.0.1:0".parse().unwrap();
    let write = |token: &str, mode| {
        std::fs::write(&token_file, token).unwrap();
        std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (token, mode) in [("0123456789abcdef0123", 0o644), ("short", 0o600), ("with spaces in the middle", 0o600)] {
        write(token, mode);
        assert!(matches!(TokenDoor::bind(local, &token_file).await, Err(DoorError::Token { .. })), "{token} {mode:o}");
    }
    write("0123456789abcdef0123\n", 0o600);
    let door = TokenDoor::bind(local, &token_file).await.unwrap();
    let address = door.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(door.serve(Arc::new(Remembers::default()), async {
        let _ = stopped.await;
    }));
    for wrong in ["", "authorization: Bearer 0123456789abcdef012\r\n", "authorization: Basic 0123456789abcdef0123\r\n"]
    {
        let (head, body) = get(address, "/v1/status", wrong).await;
        assert!(head.starts_with("http/1.1 401 ") && head.contains("www-authenticate: bearer"), "{head}");
        assert!(!body.contains("azure"), "{body}");
    }
    let right = "authorization: Bearer 0123456789abcdef0123\r\n";
    let (head, body) = get(address, "/v1/clouds", right).await;
    assert!(head.starts_with("http/1.1 200 ") && body.contains("\"azure\""), "{head} {body}");
    assert!(get(address, "/v2", right).await.0.starts_with("http/1.1 404 "));
    assert!(
        get(address, "/v1/clouds/b/failover", right).await.0.starts_with("http/1.1 400 "),
        "GET where POST is meant"
    );
    let (head, body) = ask("POST", address, "/v1/clouds/failover", right).await;
    assert!(head.starts_with("http/1.1 400 ") && body.contains("name the cloud"), "it is not to guess: {head} {body}");
    assert!(get(address, "/v1/clouds/failover", right).await.0.starts_with("http/1.1 400 "), "GET where POST is meant");
    assert!(get(address, "/v1/segments?limit=x", right).await.0.starts_with("http/1.1 400 "));
    drop(stop);
    serving.await.unwrap();
}

#[tokio::test]
async fn monitoring_has_a_port_of_its_own() {
    let door = MetricsDoor::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = door.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let site = Arc::new(Remembers::default());
    let serving = tokio::spawn(door.serve(site.clone(), async {
        let _ = stopped.await;
    }));
    let (head, body) = get(address, "/healthz", "").await;
    assert!(head.starts_with("http/1.1 200 ") && body.contains("majority: yes"), "{head} {body}");
    assert!(!body.contains("removed"), "{body}");
    // It still answers, so that peers that lie do not have it taken out of service.
    *site.1.lock().unwrap() = Some(Status { removed: Some("ams says so".into()), ..troubled() });
    let (head, body) = get(address, "/healthz", "").await;
    assert!(head.starts_with("http/1.1 200 ") && body.ends_with("\nremoved: ams says so\n"), "{head} {body}");
    assert!(get(address, "/metrics", "").await.1.contains("filer_removed 1.0\n"));
    let (head, body) = get(address, "/metrics", "").await;
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.contains("filer_nfs_connections 3.0\n"), "{body}");
    assert!(get(address, "/v1/status", "").await.0.starts_with("http/1.1 404 "), "nothing else is told here");
    drop(stop);
    serving.await.unwrap();
}

/// Reads the page as Prometheus does: every line is a comment or `name{labels} value`.
#[test]
fn the_metrics_page_parses_and_says_what_the_status_says() {
    let text = metrics_text(&troubled(), &[("extra_bytes", "An extra number", 5.0)]);
    let mut samples = std::collections::BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("# ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(name.starts_with("filer_"), "{line}");
        assert!(samples.insert(name.to_string(), value).is_none(), "twice: {line}");
    }
    assert!(text.ends_with("# EOF\n"));
    for (name, value) in [
        ("filer_epoch", 7.0),
        ("filer_absorbs_failure", 0.0),
        ("filer_oldest_unprotected_seconds", 1.5),
        ("filer_cloud_oldest_unprotected_seconds{cloud=\"azure\"}", 1.5),
        ("filer_cloud_oldest_miss_seconds{cloud=\"aws\"}", 3600.0),
        ("filer_cloud_state{cloud=\"aws\",state=\"resyncing\"}", 1.0),
        ("filer_cloud_state{cloud=\"aws\",state=\"healthy\"}", 0.0),
        ("filer_cloud_active{cloud=\"azure\"}", 1.0),
        ("filer_cloud_held_by_operator{cloud=\"azure\"}", 1.0),
        ("filer_cloud_held_by_operator{cloud=\"aws\"}", 0.0),
        ("filer_cloud_failing_seconds{cloud=\"aws\"}", 2.0),
        ("filer_cloud_failing_seconds{cloud=\"azure\"}", 0.0),
        ("filer_cloud_failures_total{cloud=\"aws\"}", 171.0),
        ("filer_cloud_missed_puts{cloud=\"aws\"}", 40.0),
        ("filer_peer_connected{peer=\"fra\"}", 0.0),
        ("filer_peer_heard_seconds{peer=\"fra\"}", 12.0),
        ("filer_peer_epoch{peer=\"fra\"}", 6.0),
        ("filer_peer_staged_bytes{peer=\"fra\"}", 4096.0),
        ("filer_peer_oldest_unprotected_seconds{peer=\"fra\"}", 900.0),
        ("filer_certificate_left_seconds", 1_036_800.0),
        ("filer_certificate_ends_soon", 1.0),
        ("filer_revoked_certificates", 1.0),
        ("filer_dead_segments", 9.0),
        ("filer_undeleted_segments", 4.0),
        ("filer_extra_bytes", 5.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
    }
}

/// What nobody has said is no number: a zero would say that all is safe.
#[test]
fn a_peer_that_has_not_said_what_it_holds_is_no_zero() {
    let mut status = troubled();
    (status.peers[1].staged_bytes, status.peers[1].oldest_unprotected_ms) = (None, None);
    let silent = metrics_text(&status, &[]);
    assert!(!silent.contains("filer_peer_staged_bytes{") && !silent.contains("_unprotected_seconds{peer"), "{silent}");
    status.peers[1].staged_bytes = Some(0);
    let empty = metrics_text(&status, &[]);
    for line in
        ["filer_peer_staged_bytes{peer=\"fra\"} 0.0\n", "filer_peer_oldest_unprotected_seconds{peer=\"fra\"} 0.0\n"]
    {
        assert!(empty.contains(line), "{line} in\n{empty}");
    }
}

/// Scripts read both pages: a state has one word, in the JSON and as a label.
#[test]
fn states_and_roles_are_told_in_lower_case_everywhere() {
    for (state, word) in
        [(CloudState::Healthy, "healthy"), (CloudState::Failed, "failed"), (CloudState::Resyncing, "resyncing")]
    {
        let mut status = troubled();
        status.clouds[0].state = state;
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["clouds"][0]["state"], word);
        assert_eq!(json["clouds"][0]["role"], "standby");
        assert_eq!(json["clouds"][1]["role"], "active");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
        let line = format!("filer_cloud_state{{cloud=\"aws\",state=\"{word}\"}} 1.0\n");
        let page = metrics_text(&status, &[]);
        assert!(page.contains(&line), "{line} in\n{page}");
    }
}

/// A filer that is killed leaves its callers at any point of an answer: it is gone, however far that had come.
#[tokio::test]
async fn whoever_goes_away_in_the_middle_of_an_answer_may_have_done_what_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let client = AdminClient::new(&path);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let whole = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let cases = [
        (false, String::new(), true),
        (true, String::new(), true),
        (true, "HTTP/1.1 20".into(), true),
        (true, head.into(), true),
        (true, format!("{head}{{\"epoch\":"), true),
        (true, "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(), false),
        (true, whole("{\"epoch\": 3"), false),
    ];
    for (reads, sends, gone) in cases {
        let goes_away = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            if reads {
                let mut request = [0; 4_096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
            }
            stream.write_all(sends.as_bytes()).await.unwrap();
        };
        let (said, ()) = tokio::join!(client.status(), goes_away);
        let error = said.unwrap_err();
        assert_eq!(matches!(error, ClientError::WentAway { .. }), gone, "{sends:?}: {error:?}");
        assert_eq!(error.to_string().contains("may have been done"), gone, "{sends:?}: {error}");
    }
}

#[test]
fn an_answer_that_does_not_come_is_told_in_seconds() {
    let late = ClientError::TimedOut { socket: "/s".into(), after_ms: 12_000 };
    assert_eq!(late.to_string(), "the filer at /s gave no answer within 12 s");
}

#[test]
fn a_status_of_another_version_is_read_as_far_as_it_goes() {
    let status: Status = serde_json::from_str("{\"epoch\": 3, \"novelty\": true}").unwrap();
    assert_eq!(status.epoch, 3);
    let text = serde_json::to_string(&troubled()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), troubled());
}
