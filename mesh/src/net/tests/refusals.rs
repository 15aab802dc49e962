#![expect(clippy::disallowed_methods, reason = "real sockets, that nobody answers at")]

use super::*;
use crate::net::{
    PeerCertificate, RefusedCertificates,
    frame::{CallHeader, encode_header},
    identity::tests::intruder,
    tls::ALPN,
};
use crate::peers::BODY_BYTES_MAX;
use quinn::{ConnectionError, crypto::rustls::QuicClientConfig};

#[tokio::test]
async fn a_foreign_authority_is_recognised_from_both_sides() {
    let ours = Site::start(filer(&ca(), 1), quick());
    let other = MeshCa::create("test", &now()).expect("ca");
    let foreign = Site::start(filer(&other, 2), quick());

    ours.knows(&[&foreign]);
    let said = ours.fails(foreign.id()).await;
    assert!(said.contains("CloudFS test") && said.contains("our CloudFS \"prod\""), "{said}");
    assert!(ours.last_error(foreign.id()).is_some_and(|e| e.contains("CloudFS test")));
    assert!(ours.mesh.stats().refused.foreign >= 1);
    ours.mesh.set_members(BTreeMap::new());

    // An intruder that knows our authority's certificate still has none that it signed.
    let before = ours.mesh.stats().refused.foreign;
    let made = intruder(&ours.mesh.identity(), &foreign.mesh.identity());
    let intruder = Site::start(made, quick());
    intruder.knows(&[&ours]);
    let said = intruder.fails(ours.id()).await;
    assert!(said.contains("belongs to another CloudFS"), "{said}");
    assert!(ours.mesh.stats().refused.foreign > before);
    assert_eq!(ours.mesh.stats().sessions_opened, 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_from_both_sides() {
    let ca = ca();
    let ours = Site::start(filer(&ca, 1), quick());
    let late = identity(&ca, 2, "late", 1, &Stopped(now().0 - 10 * 86_400));
    let late = Site::start(late, quick());
    late.knows(&[&ours]);
    let said = late.fails(ours.id()).await;
    assert!(said.contains("has expired"), "{said}");
    let only = |n| RefusedCertificates { expired: n, ..RefusedCertificates::default() };
    let counted = ours.mesh.stats().refused;
    assert!(counted.expired >= 1 && counted == only(counted.expired), "{counted:?}");

    ours.knows(&[&late]);
    let said = ours.fails(late.id()).await;
    assert!(said.contains("00000002 (late)") && said.contains("expired"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let ca = ca();
    let ours = Site::start(filer(&ca, 1), quick());
    let early = Site::start(identity(&ca, 2, "early", 1, &Stopped(now().0 + 10 * 86_400)), quick());
    ours.knows(&[&early]);
    let said = ours.fails(early.id()).await;
    assert!(said.contains("compare the clocks"), "{said}");
    assert!(ours.mesh.stats().refused.not_yet_valid >= 1);
}

#[tokio::test]
async fn a_removed_filer_loses_its_session_and_gets_no_other() {
    let ca = ca();
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
    b.knows(&[&a]);
    b.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    a.mesh.set_removed([b.id()].into());
    // Once the session is gone, its certificate is refused whenever it comes back.
    let said = comes(async {
        loop {
            let said = b.fails(a.id()).await;
            if a.mesh.stats().refused.removed > 0 {
                return said;
            }
        }
    });
    let said = said.await;
    assert!(said.contains("this filer was removed from the CloudFS"), "{said}");
    assert_eq!(a.mesh.stats().sessions, 0);
    // It knows why, until it is let in after all.
    comes(async {
        while b.mesh.removed_by() != ["site1"] {
            b.fails(a.id()).await;
        }
    })
    .await;

    a.mesh.set_removed(Default::default());
    comes(async { while b.says(a.id(), "hi", Bytes::new()).await.is_err() {} }).await;
    assert!(b.mesh.removed_by().is_empty(), "{:?}", b.mesh.removed_by());
}

#[tokio::test]
async fn a_filer_that_was_away_while_it_was_removed_is_told_so() {
    let ca = ca();
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
    a.mesh.set_removed([b.id()].into());
    b.knows(&[&a]);
    comes(async {
        while b.mesh.removed_by() != ["site1"] {
            let said = b.fails(a.id()).await;
            assert!(said.contains("this filer was removed from the CloudFS"), "{said}");
        }
    })
    .await;
    assert!(a.mesh.removed_by().is_empty() && a.mesh.stats().sessions_opened == 0);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_holder_comes_back_with_another() {
    let ca = ca();
    let a = Site::start(filer(&ca, 1), quick());
    let (old, new) = (filer(&ca, 2), filer(&ca, 2));
    assert_ne!(old.serial(), new.serial(), "every certificate has a number of its own");
    let revoked: std::collections::BTreeSet<String> = [old.serial().to_string()].into();
    let b = Site::start(old, quick());
    b.knows(&[&a]);
    b.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    a.mesh.set_revoked(revoked.clone());
    let said = comes(async {
        loop {
            let said = b.fails(a.id()).await;
            if a.mesh.stats().refused.revoked > 0 {
                return said;
            }
        }
    });
    let said = said.await;
    assert!(said.contains("revoked"), "{said}");
    assert!(b.mesh.removed_by().is_empty(), "it was not removed");
    assert_eq!(a.mesh.stats().sessions, 0);
    // Who dials it finds out too.
    a.knows(&[&b]);
    let said = a.fails(b.id()).await;
    assert!(said.contains("it was revoked (serial number"), "{said}");
    a.mesh.set_members(BTreeMap::new());
    b.mesh.close().await;

    let b = Site::start(new, quick());
    b.knows(&[&a]);
    comes(async { while b.says(a.id(), "hi", Bytes::new()).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_session_on() {
    let ca = ca();
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
    b.knows(&[&a]);
    b.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    let (old, new) = (b.mesh.identity().serial().to_string(), filer(&ca, 2));
    let serial = new.serial().to_string();
    let not_after_s = b.mesh.identity().not_after_s();
    for of_another in [filer(&ca, 3), identity(&ca, 2, "other", 30, &now()), filer(&self::ca(), 2)] {
        assert!(b.mesh.renew(of_another).is_err());
    }
    assert_eq!(b.mesh.identity().serial(), old);
    b.mesh.renew(new).expect("it is of the same filer");
    assert_eq!(b.mesh.identity().serial(), serial);
    b.says(a.id(), "hi", Bytes::new()).await.expect("answered");
    assert_eq!(a.mesh.stats().sessions_opened, 1, "the session stands as it was opened");
    let shown = PeerCertificate { serial: old.clone(), not_after_s };
    assert_eq!(a.mesh.certificates(), BTreeMap::from([(b.id(), shown)]));
    // Nobody takes the old one any more, whoever dials.
    a.mesh.set_revoked([old].into());
    comes(async { while b.says(a.id(), "hi", Bytes::new()).await.is_err() {} }).await;
    b.mesh.set_members(BTreeMap::new());
    a.knows(&[&b]);
    comes(async { while a.says(b.id(), "hi", Bytes::new()).await.is_err() {} }).await;
    assert_eq!(a.mesh.stats().refused.revoked, 0, "it was not shown again");
    assert_eq!(a.mesh.certificates()[&b.id()].serial, serial);
}

#[tokio::test]
async fn connections_beyond_the_limit_and_dials_in_vain_are_counted() {
    let ca = ca();
    let narrow = MeshSettings { handshakes_max: 1, dial_ms_max: 300, ..quick() };
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), narrow));
    // Whoever begins a connection and says no more takes the one place until its time is over.
    let held = b.mesh.shared.handshakes.clone().acquire_owned().await.expect("never closed");
    a.knows(&[&b]);
    comes(async {
        while b.mesh.stats().refused_busy == 0 {
            a.fails(b.id()).await;
        }
    })
    .await;
    assert!(a.mesh.stats().dials_failed > 0);
    drop(held);
    comes(async { while a.says(b.id(), "hi", Bytes::new()).await.is_err() {} }).await;
}

#[tokio::test]
async fn another_filer_at_the_address_is_not_taken_for_the_one_dialled() {
    let (a, b) = pair();
    let (_, member) = b.member();
    a.mesh.set_members([(FilerId(7), member)].into());
    let said = a.fails(FilerId(7)).await;
    assert!(said.contains("filer 00000007 was dialled and 00000002 answered"), "{said}");
    assert!(a.mesh.stats().refused.other_filer >= 1);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (_, b) = pair();
    let config = rustls::ClientConfig::builder_with_provider(super::super::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(b.mesh.identity().roots())
        .with_no_client_auth();
    let mut config = config;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(config).expect("a QUIC configuration");
    let client = quinn::Endpoint::client(any_port()).expect("an endpoint");
    let at = b.mesh.local_addr().expect("bound");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let conn = client.connect_with(config, at, "0000000000000002.filer.mesh").expect("dialled").await;
    let e = match conn {
        Ok(conn) => conn.closed().await,
        Err(e) => e,
    };
    assert!(matches!(e, ConnectionError::ConnectionClosed(_)), "{e}");
    assert_eq!(b.mesh.stats().refused.missing, 1);
}

#[tokio::test]
async fn a_newer_protocol_is_refused_in_words_at_both_sides() {
    let ca = ca();
    let old = Site::start(filer(&ca, 1), quick());
    let random = Arc::new(SeededRandom::new(seed()));
    let new = QuicMesh::start_speaking(quick(), filer(&ca, 2), any_port(), random, 2..=3).expect("started");
    let new = Site::serving(new, "new");
    let words = "filer 00000002 (site2) speaks protocol versions 2 to 3, and filer 00000001 (site1) speaks version 1: upgrade site1";
    old.knows(&[&new]);
    let said = old.fails(new.id()).await;
    assert!(said.contains("speaks") && said.contains("upgrade site1"), "{said}");
    old.mesh.set_members(BTreeMap::new());

    new.knows(&[&old]);
    let said = new.fails(old.id()).await;
    assert!(said.contains(words), "{said}");
    assert!(new.last_error(old.id()).is_some_and(|e| e.contains("upgrade site1")));
    assert!(old.mesh.stats().refused_greetings >= 1);
    assert_eq!(old.mesh.stats().sessions_opened, 0);
}

/// Ends the session between the two by what `write` puts on a stream of it; gives the code that came with the end.
async fn broken_by(a: &Site, b: &Site, bytes: Bytes) -> u64 {
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    let session = a.mesh.shared.roster.session(b.id()).expect("a member").ok().expect("a session");
    let (mut send, _recv) = session.conn.open_bi().await.expect("a stream");
    send.write_chunk(bytes).await.expect("written");
    send.finish().expect("finished");
    match comes(session.conn.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        e => panic!("{e}"),
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection_and_nothing_else() {
    let (a, b) = pair();
    let header = CallHeader {
        channel: Channel::Filer,
        head_len: 0,
        body_len: BODY_BYTES_MAX as u32 + 1,
        deadline_ms: LONG.as_millis() as u64,
    };
    assert_eq!(broken_by(&a, &b, encode_header(1, &header)).await, 7, "above the limit");
    assert_eq!(broken_by(&a, &b, Bytes::from_static(&[255, 255, 0])).await, 7, "header above the limit");
    assert_eq!(broken_by(&a, &b, Bytes::from_static(b"\x05\x00\x01zzzz")).await, 6, "not a header");
    assert_eq!(broken_by(&a, &b, encode_header(9, &header)).await, 6, "a newer header than agreed on");
    let short = encode_header(1, &CallHeader { body_len: 100, ..header });
    assert_eq!(broken_by(&a, &b, short).await, 6, "ends early");
    let long = [&encode_header(1, &CallHeader { body_len: 1, ..header })[..], b"ab"].concat();
    assert_eq!(broken_by(&a, &b, long.into()).await, 6, "bytes behind its end");
    a.says(b.id(), "hi", Bytes::new()).await.expect("the next call works");
    assert_eq!(b.mesh.stats().malformed_frames, 6);
    assert_eq!(b.mesh.stats().sessions, 1);
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let (a, b) = pair();
    a.says(b.id(), "hi", Bytes::new()).await.expect("answered");
    let socket = tokio::net::UdpSocket::bind(any_port()).await.expect("bound");
    let at = b.mesh.local_addr().expect("bound");
    let random = SeededRandom::new(42);
    for round in 0..300usize {
        let len = 1 + (crate::clock::Random::next_u64(&random) as usize % 1_400);
        let mut datagram: Vec<u8> = (0..len).map(|_| crate::clock::Random::next_u64(&random) as u8).collect();
        if round % 2 == 0 && len > 5 {
            // As if it were the first packet of a QUIC 1 connection.
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, at).await.expect("sent");
    }
    a.says(b.id(), "hi", vec![1; 1 << 20].into()).await.expect("answered");
    assert_eq!((a.mesh.stats().sessions_opened, b.mesh.stats().malformed_frames), (1, 0));
}
