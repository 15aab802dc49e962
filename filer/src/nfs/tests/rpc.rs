//! RPC itself: refusals, fragments, garbage, bounds, shutdown; and the port mapper.

#![expect(clippy::disallowed_methods, reason = "a real client, at a real door")]

use super::client::{Client, Refused, Site, at, packed, record, sealed, start, unpacked, unsquashed, user, xid_next};
use super::memory::Memory;
use crate::nfs::{Export, NfsServer, NfsSettings, StartError};
use nfs3_types::nfs3::{self, GETATTR3args, GETATTR3res, NFS_PROGRAM, READ3args, REMOVE3args, REMOVE3res};
use nfs3_types::portmap::{self, mapping};
use nfs3_types::rpc::{accept_stat_data, auth_flavor, auth_stat, fragment_header, opaque_auth, rejected_reply};
use nfs3_types::xdr_codec::{List, Opaque, Void};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

#[tokio::test]
async fn unknown_programs_versions_and_procedures_are_named() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let refused = client.ask((100_227, 3), 0, &Void).await;
    assert!(matches!(refused, Err(Refused::Accepted(accept_stat_data::PROG_UNAVAIL))));
    for (program, version) in [(nfs3::PROGRAM, 3), (100_005, 3), (100_000, 2)] {
        let refused = client.ask((program, 9), 0, &Void).await;
        match refused {
            Err(Refused::Accepted(accept_stat_data::PROG_MISMATCH { low, high })) => {
                assert_eq!((low, high), (version, version))
            }
            other => panic!("{other:?}"),
        }
        let refused = client.ask((program, version), 77, &Void).await;
        assert!(matches!(refused, Err(Refused::Accepted(accept_stat_data::PROC_UNAVAIL))));
        assert_eq!(client.ask((program, version), 0, &Void).await.expect("NULL"), b"");
    }
    let refused = client.ask(NFS, NFS_PROGRAM::NFSPROC3_GETATTR as u32, &7u32).await;
    assert!(matches!(refused, Err(Refused::Accepted(accept_stat_data::GARBAGE_ARGS))));
    // A length that reaches far beyond the record.
    let refused = client.ask(NFS, NFS_PROGRAM::NFSPROC3_SYMLINK as u32, &u32::MAX).await;
    assert!(matches!(refused, Err(Refused::Accepted(accept_stat_data::GARBAGE_ARGS))));
    assert_eq!(site.server.stats().refused_calls, 1 + 3 + 3 + 2);
}

#[tokio::test]
async fn other_rpc_versions_and_credentials_are_denied() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let mut call = client.call(5, NFS, 0, &Void);
    call[11] = 3;
    client.send(&record(&call)).await;
    let (xid, refused) = client.receive().await;
    assert_eq!(xid, 5);
    assert!(matches!(refused, Err(Refused::Denied(rejected_reply::RPC_MISMATCH { low: 2, high: 2 }))));

    for (flavor, body, expected) in [
        (auth_flavor::AUTH_DES, vec![], auth_stat::AUTH_TOOWEAK),
        (auth_flavor::AUTH_SHORT, vec![], auth_stat::AUTH_REJECTEDCRED),
        (auth_flavor::AUTH_UNIX, vec![0; 8], auth_stat::AUTH_BADCRED),
        (auth_flavor::AUTH_UNIX, user(0, (0..17).collect()).body.into_owned(), auth_stat::AUTH_BADCRED),
    ] {
        client.credentials = opaque_auth { flavor, body: Opaque::owned(body) };
        match client.ask(NFS, 0, &Void).await {
            Err(Refused::Denied(rejected_reply::AUTH_ERROR(why))) => assert_eq!(why, expected),
            other => panic!("{other:?}"),
        }
    }
    client.credentials = opaque_auth::default();
    client.ask(NFS, 0, &Void).await.expect("AUTH_NONE is welcome");
}

#[tokio::test]
async fn a_call_in_many_fragments_is_one_call() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let call = client.call(9, NFS, 1, &GETATTR3args { object: root });
    let (parts, last) = call.split_last_chunk::<7>().expect("longer");
    for part in parts.chunks(3) {
        let mark = fragment_header::new(part.len() as u32, false).into_xdr_buf();
        client.send(&mark[..2]).await;
        client.send(&[&mark[2..], part].concat()).await;
    }
    client.send(&record(last)).await;
    let (xid, result) = client.receive().await;
    assert_eq!(xid, 9);
    assert!(matches!(unpacked(&result.expect("accepted")), GETATTR3res::Ok(_)));
}

#[tokio::test]
async fn garbage_and_long_records_close_their_connection_alone() {
    let settings = NfsSettings {
        write_bytes_max: 8192,
        write_bytes_preferred: 8192,
        record_bytes_max: 16384,
        ..NfsSettings::default()
    };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let mut bystander = site.client().await;
    bystander.ask(NFS, 0, &Void).await.expect("served");
    let reply_not_call = [packed(&1u32), packed(&1u32), packed(&[0u8; 16])].concat();
    let long_in_parts = [fragment_header::new(16384, false).into_xdr_buf().to_vec(), vec![0; 16384], record(&[0])];
    let garbage = [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
        record(&[]),
        record(&[1, 2, 3]),
        record(&reply_not_call),
        fragment_header::new(16385, true).into_xdr_buf().to_vec(),
        long_in_parts.concat(),
    ];
    for (index, bytes) in garbage.iter().enumerate() {
        let mut client = site.client().await;
        client.try_send(bytes).await;
        let (_, result) = client.receive().await;
        assert!(matches!(result, Err(Refused::Closed)), "{index}");
        assert_eq!(site.server.stats().garbage_closed, index as u64 + 1);
    }
    bystander.ask(NFS, 0, &Void).await.expect("still served");
    assert_eq!(site.server.stats().connections_total, garbage.len() as u64 + 1);
}

/// Its client would wait for the answer for ever; over a new connection it asks again.
#[tokio::test]
async fn a_call_that_panics_ends_its_connection_alone() {
    let site = Site::open().await;
    let (mut client, mut bystander) = (site.client().await, site.client().await);
    let root = client.mount("/").await.expect("exported");
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let object = REMOVE3args { object: at(&root, "none") };
    client.send(&record(&client.call(1, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &object))).await;
    site.memory.removes_held.notified().await;
    // The call in the tree takes that for impossible.
    site.memory.let_removes_go.close();
    assert!(matches!(client.receive().await.1, Err(Refused::Closed)));
    bystander.ask(NFS, 0, &Void).await.expect("still served");
    let mut again = site.client().await;
    site.memory.hold_removes.store(false, Ordering::SeqCst);
    let removed: REMOVE3res = again.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &object).await;
    assert!(matches!(removed, REMOVE3res::Err((nfs3::nfsstat3::NFS3ERR_NOENT, _))));
}

#[tokio::test]
async fn connections_are_limited_and_idle_ones_closed() {
    let settings = NfsSettings { connections_max: 1, idle_ms_max: 50, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let mut first = site.client().await;
    let root = first.mount("/").await.expect("exported");
    let object = REMOVE3args { object: at(&root, "none") };
    first.send(&record(&first.call(1, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &object))).await;
    // With a call at work it is not idle, however long that takes.
    site.memory.removes_held.notified().await;
    let mut second = site.client().await;
    second.try_send(&record(&second.call(1, NFS, 0, &Void))).await;
    assert!(matches!(second.receive().await.1, Err(Refused::Closed)));
    site.memory.let_removes_go.add_permits(1);
    first.receive().await.1.expect("answered");
    // Nothing is asked any more: the server ends the connection.
    assert!(matches!(first.receive().await.1, Err(Refused::Closed)));
    let stats = site.server.stats();
    assert_eq!((stats.connections_refused, stats.idle_closed, stats.connections_total), (1, 1, 1));
}

#[tokio::test]
async fn calls_overtake_each_other_up_to_the_bound() {
    let settings = NfsSettings { calls_in_flight_max: 2, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let remove = |client: &Client, xid| {
        record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &REMOVE3args { object: at(&root, "none") }))
    };
    let (slow, slower, last) = (xid_next(), xid_next(), xid_next());
    client.send(&remove(&client, slow)).await;
    site.memory.removes_held.notified().await;
    // A quick call overtakes the slow one.
    client.ask(NFS, 0, &Void).await.expect("served");
    client.send(&remove(&client, slower)).await;
    site.memory.removes_held.notified().await;
    // No place is left for changes: this one does not begin before another is answered.
    client.send(&remove(&client, last)).await;
    site.memory.let_removes_go.add_permits(1);
    let (answered, _) = client.receive().await;
    assert!([slow, slower].contains(&answered));
    site.memory.removes_held.notified().await;
    site.memory.let_removes_go.add_permits(2);
    let mut rest = [client.receive().await.0, client.receive().await.0];
    rest.sort_unstable();
    let mut expected = [if answered == slow { slower } else { slow }, last];
    expected.sort_unstable();
    assert_eq!(rest, expected);
    assert_eq!(site.server.stats().calls["remove"], 3);
}

#[tokio::test]
async fn a_pipeline_of_calls_is_answered_whole() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let calls: Vec<u8> = (0..500).flat_map(|xid| record(&client.call(xid, NFS, 0, &Void))).collect();
    client.send(&calls).await;
    let mut answered = Vec::new();
    for _ in 0..500 {
        answered.push(client.receive().await.0);
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..500));
}

#[tokio::test]
async fn a_shutdown_lets_calls_finish() {
    let site = Site::open().await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let object = REMOVE3args { object: at(&root, "none") };
    client.send(&record(&client.call(3, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &object))).await;
    site.memory.removes_held.notified().await;
    let Site { memory, server } = site;
    let address = server.local_addr();
    let release = async {
        tokio::task::yield_now().await;
        memory.let_removes_go.add_permits(1);
    };
    tokio::join!(server.shutdown(), release);
    let (xid, result) = client.receive().await;
    assert_eq!(xid, 3);
    assert!(matches!(unpacked(&result.expect("answered")), REMOVE3res::Err(_)));
    assert!(matches!(client.receive().await.1, Err(Refused::Closed)));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_ends_at_its_deadline() {
    let settings = NfsSettings { shutdown_ms_max: 20, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let object = REMOVE3args { object: at(&root, "none") };
    client.send(&record(&client.call(3, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &object))).await;
    site.memory.removes_held.notified().await;
    site.server.shutdown().await;
    assert!(matches!(client.receive().await.1, Err(Refused::Closed)));
}

#[tokio::test]
async fn what_cannot_be_served_is_not_started() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let start_with =
        |settings, exports| NfsServer::start(settings, exports, (1, sealed(7)), Arc::new(Memory::new()), listen);
    let refused = start_with(NfsSettings { calls_in_flight_max: 0, ..NfsSettings::default() }, vec![]).await;
    assert!(matches!(refused, Err(StartError::Settings { .. })));
    let refused = start_with(NfsSettings { record_bytes_max: 1 << 20, ..NfsSettings::default() }, vec![]).await;
    assert!(matches!(refused, Err(StartError::Settings { .. })));
    let refused = start_with(NfsSettings::default(), vec![Export::new("relative")]).await;
    assert!(matches!(refused, Err(StartError::Export(_))));
    let taken = start(NfsSettings::default(), vec![], Arc::new(Memory::new())).await;
    let refused =
        NfsServer::start(NfsSettings::default(), vec![], (1, sealed(7)), Arc::new(Memory::new()), taken.local_addr())
            .await;
    assert!(matches!(refused, Err(StartError::Listen { .. })));
}

#[tokio::test]
async fn every_port_serves_all_programs_and_the_port_mapper_names_the_first() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let extra = free.local_addr().expect("bound");
    drop(free);
    let settings = NfsSettings { extra_listen: vec![extra], ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let port = u32::from(site.server.local_addr().port());
    let portmap = (portmap::PROGRAM, portmap::VERSION);
    let mut client = Client::connect(extra).await;
    for (prog, vers, prot, expected) in [
        (nfs3::PROGRAM, 3, 6, port),
        (100_005, 3, 6, port),
        (nfs3::PROGRAM, 3, 17, 0),
        (nfs3::PROGRAM, 4, 6, 0),
        (100_021, 4, 6, 0),
    ] {
        let found = client.ask(portmap, 3, &mapping { prog, vers, prot, port: 0 }).await.expect("accepted");
        assert_eq!(unpacked::<u32>(&found), expected, "{prog} {vers} {prot}");
    }
    let all: List<mapping> = unpacked(&client.ask(portmap, 4, &Void).await.expect("accepted"));
    assert!(all.0.len() == 3 && all.0.iter().all(|mapping| mapping.port == port));
    let set = mapping { prog: nfs3::PROGRAM, vers: 3, prot: 6, port: 1 };
    assert!(!unpacked::<bool>(&client.ask(portmap, 1, &set).await.expect("accepted")));
    assert!(matches!(client.ask(portmap, 5, &Void).await, Err(Refused::Accepted(accept_stat_data::PROC_UNAVAIL))));
    client.mount("/").await.expect("MOUNT answers there too");
    let stats = site.server.stats();
    assert_eq!((stats.portmap_calls, stats.mount_calls), (8, 1));
}

#[tokio::test]
async fn reads_larger_than_the_bound_on_bytes_wait_and_go_through() {
    let settings = NfsSettings { read_bytes_in_flight_max: 4 << 20, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    // Reads of a directory fail; what counts is that all are answered although their room is not there at once.
    let read = READ3args { file: root, offset: 0, count: u32::MAX };
    let calls: Vec<u8> =
        (0..40).flat_map(|xid| record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_READ as u32, &read))).collect();
    client.send(&calls).await;
    for _ in 0..40 {
        client.receive().await.1.expect("answered");
    }
    assert_eq!(site.server.stats().errors["NFS3ERR_ISDIR"], 40);
}

#[tokio::test]
async fn arguments_cut_short_or_made_up_never_harm() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    // Numbers from a linear congruential generator (Knuth's MMIX): the same at every run.
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut sent = 0;
    for round in 0..60u32 {
        for procedure in 0..22 {
            let mut call = client.call(sent, NFS, procedure, &GETATTR3args { object: root.clone() });
            for _ in 0..round {
                // Small numbers pass for lengths, choices and flags; some are far too large.
                let number = if random() % 8 == 0 { random() } else { random() % 6 };
                call.extend_from_slice(&number.to_be_bytes());
            }
            client.send(&record(&call)).await;
            let (xid, result) = client.receive().await;
            assert_eq!(xid, sent);
            assert!(
                matches!(result, Ok(_) | Err(Refused::Accepted(accept_stat_data::GARBAGE_ARGS))),
                "{procedure}: {result:?}"
            );
            sent += 1;
        }
    }
    let stats = site.server.stats();
    assert!(stats.refused_calls > 0 && stats.garbage_closed == 0 && stats.calls_in_flight == 0);
}
