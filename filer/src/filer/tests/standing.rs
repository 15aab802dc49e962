//! What a peer's certificate is good for: strangers are let in under their own name or not at all, and told nothing.

use super::world::World;
use crate::wire::{FilerCall, FilerReply, WIRE_VERSION};
use bytes::Bytes;
use mesh::{
    FilerId,
    peers::{Member, Message, PeerName},
    record,
};
use storage::{
    cloudfs::{Op, OpBody, OpError, decode_answer, door_secret, encode_op},
    ids::SegmentId,
};

/// What site 0 answers the holder of a certificate.
async fn answers(world: &World, from: (u64, &str), call: FilerCall) -> Result<FilerReply, String> {
    let from = PeerName { id: FilerId(from.0), name: from.1.into() };
    let head = record::encode(WIRE_VERSION, &call).into();
    let message = Message { head, body: Bytes::new() };
    let answer = world.site(0).call(async move |filer| filer.services.filer.handle(&from, message).await).await?;
    Ok(record::decode(WIRE_VERSION, &answer.head).expect("an answer is readable"))
}

#[test]
fn a_stranger_is_told_nothing_and_joins_under_no_other_name() {
    World::run(2, async |world| {
        let segment = SegmentId { filer: FilerId(1), number: 1 };
        let read = FilerCall::ReadSegment { segment, at: 0, len: 1 };
        for call in [FilerCall::Ballot, FilerCall::Report, FilerCall::Certificate, read] {
            let why = answers(world, (9, "site9"), call).await.expect_err("a stranger");
            assert!(why.contains("is no member of the CloudFS"), "{why}");
        }
        let member = Member { name: "site2".into(), address: "10.0.0.9:7000".into() };
        let why = answers(world, (9, "site9"), FilerCall::Join { member }).await.expect_err("another's name");
        assert!(why.contains("its certificate is for \"site9\""), "{why}");
        // A certificate that says the name of a member, under another id.
        let member = Member { name: "site2".into(), address: "10.0.0.9:7000".into() };
        let why = answers(world, (9, "site2"), FilerCall::Join { member }).await.expect_err("a name that is taken");
        assert!(why.contains("has the name \"site2\" already"), "{why}");
        assert!(matches!(answers(world, (2, "site2"), FilerCall::Ballot).await, Ok(FilerReply::Ballot(_))));
        let Ok(FilerReply::Report(report)) = answers(world, (2, "site2"), FilerCall::Report).await else {
            panic!("a member is told")
        };
        assert_eq!((report.version.as_str(), report.epoch), (env!("CARGO_PKG_VERSION"), 1));
    });
}

#[test]
fn an_operation_in_another_filers_name_is_refused_at_every_site() {
    World::run(2, async |world| {
        let op = Op {
            filer: FilerId(1),
            wall_ns: 1,
            body: OpBody::Abandon { segment: SegmentId { filer: FilerId(1), number: 1 } },
        };
        let propose = async move |filer: crate::filer::Filer| {
            filer.consensus.propose(encode_op(&op), std::time::Duration::from_secs(10)).await
        };
        let answer = world.site(1).call(propose).await.expect("a majority can be reached");
        let refused = decode_answer(&answer).expect("readable").expect_err("refused");
        assert!(matches!(refused, OpError::Refused(why) if why.contains("in the name of filer 00000001")));
    });
}

#[test]
fn all_sites_seal_with_one_secret_for_ever() {
    World::run(3, async |world| {
        let secret = |world: &World, site: usize| door_secret(&world.site(site).kv).expect("memory does not fail");
        world.until("every site has the secret", |world| (0..3).all(|site| secret(world, site).is_some())).await;
        let first = secret(world, 0);
        assert!((1..3).all(|site| secret(world, site) == first));
        world.settled().await;
        world.restart(0).await;
        world.restart(2).await;
        world.settled().await;
        assert!((0..3).all(|site| secret(world, site) == first));
    });
}
