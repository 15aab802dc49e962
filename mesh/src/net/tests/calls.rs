use super::*;
use crate::peers::BODY_BYTES_MAX;

#[tokio::test]
async fn three_sites_call_each_other_with_small_and_large_bodies() {
    let ca = ca();
    let sites: Vec<_> = (1..=3).map(|id| Site::start(filer(&ca, id), quick())).collect();
    for site in &sites {
        site.knows(&sites.iter().collect::<Vec<_>>());
    }
    let large = Bytes::from((0..8u32 << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    for from in &sites {
        for to in sites.iter().filter(|to| to.id() != from.id()) {
            for body in [Bytes::new(), Bytes::from_static(b"small"), large.clone()] {
                let answer = from.says(to.id(), "hi", body.clone()).await.expect("answered");
                assert_eq!(answer.head, format!("echo {}", from.id()));
                assert!(answer.body == body, "the body came back changed");
            }
        }
        assert_eq!(from.mesh.status().len(), 2, "a filer is not its own peer");
        assert!(from.mesh.status().iter().all(|s| s.connected && s.heard_ms_ago.is_some() && s.rtt_us.is_some()));
    }
    let stats = sites[0].mesh.stats();
    assert_eq!((stats.sessions, stats.calls, stats.calls_failed), (2, 6, 0));
    assert_eq!(stats.calls_served, 6);
    assert!(stats.bytes_in >= 4 * (8 << 20) && stats.bytes_out >= 4 * (8 << 20), "{stats:?}");
    for site in sites {
        site.mesh.close().await;
    }
}

#[tokio::test]
async fn one_dialled_connection_carries_calls_both_ways_and_on_both_channels() {
    let (a, b) = pair();
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    // The other side has no list of members, and yet it has the session.
    b.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    let call = Message { head: Bytes::from_static(b"hi"), body: Bytes::new() };
    let answer = b.mesh.call(a.id(), Channel::Consensus, call, LONG).await.expect("answered");
    assert_eq!(answer.head, format!("log {}", b.id()));
    assert_eq!(
        b.mesh.call(FilerId(9), Channel::Filer, Message::default(), LONG).await,
        Err(CallError::Unknown(FilerId(9)))
    );
}

#[tokio::test]
async fn a_refusal_travels_in_words_and_large_things_are_refused_at_home() {
    let (a, b) = pair();
    let said = a.says(b.id(), "refuse", Bytes::new()).await;
    assert_eq!(said, Err(CallError::Refused { to: b.id(), why: "it is not the time".into() }));
    let said = a.says(b.id(), "hi", vec![0; BODY_BYTES_MAX + 1].into()).await.expect_err("too large").to_string();
    assert!(said.contains("body of 16777217 bytes is above the limit"), "{said}");
    let said = a.says(b.id(), "oversize", Bytes::new()).await.expect_err("too large").to_string();
    assert!(said.contains("the answer cannot be sent"), "{said}");
    let largest: Bytes = vec![7; BODY_BYTES_MAX].into();
    assert!(a.says(b.id(), "hi", largest.clone()).await.expect("answered").body == largest);
    assert_eq!(b.mesh.stats().malformed_frames, 0);
}

#[tokio::test]
async fn a_panicking_handler_costs_its_call_alone() {
    let (a, b) = pair();
    let said = a.says(b.id(), "panic", Bytes::new()).await.expect_err("no answer").to_string();
    assert!(said.contains("dropped the call"), "{said}");
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    assert_eq!((a.mesh.stats().sessions_opened, a.mesh.stats().malformed_frames), (1, 0));
}

#[tokio::test]
async fn the_deadline_ends_the_call_and_its_handler() {
    let (a, mut b) = pair();
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    let call = Message { head: Bytes::from_static(b"hang"), body: Bytes::new() };
    let said = a.mesh.call(b.id(), Channel::Filer, call.clone(), Duration::from_millis(200)).await;
    assert_eq!(said, Err(CallError::TimedOut { to: b.id(), after_ms: 200 }));
    assert_eq!(b.hanging.recv().await, Some(true), "it started");
    assert_eq!(b.hanging.recv().await, Some(false), "it was dropped");

    // A caller that goes away takes its handler along, long before the deadline.
    tokio::select! {
        biased;
        _ = a.mesh.call(b.id(), Channel::Filer, call, LONG * 100) => panic!("it never answers"),
        started = b.hanging.recv() => assert_eq!(started, Some(true)),
    }
    assert_eq!(b.hanging.recv().await, Some(false), "it was dropped");
    a.says(b.id(), "hi", Bytes::new()).await.expect("the session is unharmed");
    assert_eq!(b.mesh.stats().malformed_frames, 0);
}

#[tokio::test]
async fn a_handler_ends_at_this_sides_limit_whatever_the_caller_allows() {
    let ca = ca();
    let a = Site::start(filer(&ca, 1), quick());
    let mut b = Site::start(filer(&ca, 2), MeshSettings { call_ms_max: 100, ..quick() });
    a.knows(&[&b]);
    let said = a.says(b.id(), "hang", Bytes::new()).await;
    assert!(matches!(said, Err(CallError::TimedOut { .. })), "{said:?}");
    assert_eq!((b.hanging.recv().await, b.hanging.recv().await), (Some(true), Some(false)));
}

#[tokio::test]
async fn busy_filer_handlers_do_not_hold_up_the_log() {
    let ca = ca();
    let a = Arc::new(Site::start(filer(&ca, 1), quick()));
    let mut b = Site::start(filer(&ca, 2), MeshSettings { filer_handlers_max: 1, ..quick() });
    a.knows(&[&b]);
    let (from, to) = (a.clone(), b.id());
    let hanging = tokio::spawn(async move { from.says(to, "hang", Bytes::new()).await });
    assert_eq!(b.hanging.recv().await, Some(true));
    let call = Message { head: Bytes::from_static(b"hi"), body: Bytes::new() };
    let said = a.mesh.call(to, Channel::Filer, call.clone(), Duration::from_millis(100)).await;
    assert!(matches!(said, Err(CallError::TimedOut { .. })), "{said:?}");
    a.mesh.call(to, Channel::Consensus, call, LONG).await.expect("the log has handlers of its own");
    hanging.abort();
    assert_eq!(b.hanging.recv().await, Some(false));
    a.says(to, "hi", Bytes::new()).await.expect("the handler is free again");
}

#[tokio::test]
async fn calls_are_refused_until_there_is_a_service() {
    let ca = ca();
    let a = Site::start(filer(&ca, 1), quick());
    let random = Arc::new(SeededRandom::new(seed()));
    let b = QuicMesh::start(quick(), filer(&ca, 2), any_port(), random).expect("started");
    let address = b.local_addr().expect("bound").to_string();
    a.mesh.set_members([(FilerId(2), Member { name: "b".into(), address })].into());
    let said = a.fails(FilerId(2)).await;
    assert!(said.contains("refused the call: the filer is starting"), "{said}");
    let _b = Site::serving(b, "echo");
    a.says(FilerId(2), "hi", Bytes::new()).await.expect("answered");
}
