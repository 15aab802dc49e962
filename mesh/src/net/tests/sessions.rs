#![expect(clippy::disallowed_methods, reason = "real sockets, that nobody answers at")]

use super::*;

#[tokio::test]
async fn a_peer_that_restarts_is_found_again() {
    let ca = ca();
    let identity = filer(&ca, 2);
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(identity.clone(), quick()));
    a.knows(&[&b]);
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    let at = b.mesh.local_addr().expect("bound");
    b.mesh.close().await;
    drop(b);
    assert!(a.fails(FilerId(2)).await.contains("filer 00000002"), "down");
    // The port comes free when the last task of the old mesh has ended.
    let again = comes(async {
        loop {
            let random = Arc::new(SeededRandom::new(seed()));
            match QuicMesh::start(quick(), identity.clone(), at, random) {
                Ok(mesh) => return Site::serving(mesh, "again"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let again = again.await;
    let answer = comes(async {
        loop {
            if let Ok(answer) = a.says(again.id(), "hi", Bytes::new()).await {
                return answer;
            }
        }
    });
    assert_eq!(answer.await.head, format!("again {}", a.id()));
}

#[tokio::test]
async fn a_new_start_of_a_peer_replaces_the_session_with_the_old_one() {
    let ca = ca();
    let identity = filer(&ca, 2);
    let (a, old) = (Site::start(filer(&ca, 1), quick()), Site::start(identity.clone(), quick()));
    a.knows(&[&old]);
    a.says(old.id(), "hi", Bytes::new()).await.expect("answered");
    let session = a.mesh.shared.roster.session(old.id()).expect("a member").ok().expect("a session");

    // The old process still holds its end, as one that crashed would seem to.
    let new = Site::start_at(identity, quick(), any_port(), "new");
    new.knows(&[&a]);
    new.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    assert!(!session.stands(), "the old session was replaced");
    let answer = a.says(new.id(), "hi", Bytes::new()).await.expect("answered");
    assert_eq!(answer.head, format!("new {}", a.id()));
    assert_eq!(a.mesh.stats().sessions, 1);
}

#[tokio::test]
async fn simultaneous_dials_end_in_one_session_without_a_lost_call() {
    let ca = ca();
    for _ in 0..3 {
        let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
        a.knows(&[&b]);
        b.knows(&[&a]);
        let (x, y) = tokio::join!(a.says(b.id(), "hi", Bytes::new()), b.says(a.id(), "hi", Bytes::new()));
        x.and(y).expect("answered");
        // Calls go on while the twin, if there is one, is retired.
        let both = |site: &Site| site.mesh.shared.endpoint.open_connections();
        while both(&a) > 1 || both(&b) > 1 {
            let (x, y) = tokio::join!(a.says(b.id(), "hi", Bytes::new()), b.says(a.id(), "hi", Bytes::new()));
            x.and(y).expect("answered");
        }
        let opened = (a.mesh.stats().sessions_opened, b.mesh.stats().sessions_opened);
        assert!(opened.0 <= 2 && opened.1 <= 2, "{opened:?}");
        let (x, y) = tokio::join!(a.says(b.id(), "hi", Bytes::new()), b.says(a.id(), "hi", Bytes::new()));
        x.and(y).expect("answered");
        assert_eq!((a.mesh.stats().sessions, b.mesh.stats().sessions), (1, 1));
    }
}

#[tokio::test]
async fn a_silent_peer_is_reported_within_the_deadline() {
    let ca = ca();
    let a = Site::start(filer(&ca, 1), MeshSettings { dial_ms_max: 150, ..quick() });
    let silent = std::net::UdpSocket::bind(any_port()).expect("bound");
    let address = silent.local_addr().expect("bound").to_string();
    a.mesh.set_members([(FilerId(2), Member { name: "silent".into(), address })].into());
    let call = Message::default();
    let said = a.mesh.call(FilerId(2), Channel::Filer, call, Duration::from_millis(1)).await;
    assert!(matches!(said, Err(CallError::Unreachable { .. })), "{said:?}");
    let said = a.fails(FilerId(2)).await;
    assert!(said.contains("did not answer within 150 ms"), "{said}");
    let status = a.mesh.status().remove(0);
    assert!(!status.connected && status.heard_ms_ago.is_none() && status.rtt_us.is_none());
    assert!(status.last_error.is_some_and(|e| e.contains("did not answer")));
    assert!(a.mesh.stats().dials_failed >= 1);
}

#[tokio::test]
async fn an_address_that_cannot_be_looked_up_is_said_so() {
    let a = Site::start(filer(&ca(), 1), quick());
    let member = Member { name: "b".into(), address: "no port here".into() };
    a.mesh.set_members([(FilerId(2), member)].into());
    let said = a.fails(FilerId(2)).await;
    assert!(said.contains("no port here cannot be looked up"), "{said}");
}

#[tokio::test]
async fn a_peer_is_dialled_before_anybody_calls_and_again_at_a_new_address() {
    let ca = ca();
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
    let dead = std::net::UdpSocket::bind(any_port()).expect("bound");
    let address = dead.local_addr().expect("bound").to_string();
    a.mesh.set_members([(b.id(), Member { name: "b".into(), address })].into());
    a.knows(&[&b]);
    comes(async {
        while a.mesh.stats().sessions == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(a.mesh.status()[0].connected);
    assert_eq!(a.mesh.stats().calls, 0);
}

#[tokio::test]
async fn who_leaves_the_list_is_unknown_and_may_come_back() {
    let (a, b) = pair();
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    a.mesh.set_members(BTreeMap::new());
    assert_eq!(a.says(b.id(), "hi", Bytes::new()).await, Err(CallError::Unknown(b.id())));
    assert!(a.mesh.status().is_empty());
    a.knows(&[&b]);
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    assert_eq!(a.mesh.stats().sessions, 1);
}

#[tokio::test]
async fn closing_drops_handlers_and_tells_the_peer() {
    let (a, mut b) = pair();
    let (a, to) = (Arc::new(a), b.id());
    let from = a.clone();
    let hanging = tokio::spawn(async move { from.says(to, "hang", Bytes::new()).await });
    assert_eq!(b.hanging.recv().await, Some(true));
    b.mesh.close().await;
    assert_eq!(b.hanging.recv().await, Some(false));
    let said = hanging.await.expect("joined").expect_err("no answer").to_string();
    assert!(said.contains("the filer is stopping"), "{said}");
}
