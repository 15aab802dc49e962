//! Every fault, seen by a client.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn put(client: &AmazonS3, key: &str) -> Result<object_store::PutResult, object_store::Error> {
    client.put(&Path::from(key), pattern(100_000).into()).await
}

async fn get(client: &AmazonS3, key: &str) -> Result<Bytes, object_store::Error> {
    client.get(&Path::from(key)).await?.bytes().await
}

/// A cloud with one object, and a client that waits only a moment.
async fn impatient() -> (TestCloud, AmazonS3) {
    let (cloud, client) = memory().await;
    put(&client, "old").await.unwrap();
    let client = client_within(&cloud, ANSWER_WITHIN, &cloud.options().secret_key);
    (cloud, client)
}

#[tokio::test]
async fn statuses_for_the_first_requests_on_a_prefix() {
    let (cloud, client) = memory().await;
    for status in [500, 503, 429] {
        let mark = cloud.journal().mark();
        cloud.faults().add(Fault::new(On::Put, Effect::Status { status, happened: false }).prefix("bad/").times(2));
        put(&client, "bad/1").await.unwrap_err();
        put(&client, "good/1").await.unwrap();
        put(&client, "bad/2").await.unwrap_err();
        put(&client, "bad/1").await.unwrap();
        let outcomes: Vec<_> = cloud.journal().log(mark).iter().map(|entry| entry.outcome).collect();
        assert_eq!(outcomes, [status, 200, status, 200].map(Outcome::Answered));
        assert!(cloud.objects().facts(BUCKET, "bad/2").is_err());
    }
    cloud.faults().add(Fault::new(On::Put, Effect::Status { status: 500, happened: true }));
    put(&client, "happened").await.unwrap_err();
    assert!(cloud.objects().facts(BUCKET, "happened").is_ok());
}

#[tokio::test]
async fn a_failed_cloud_counts_every_attempt() {
    let (cloud, client) = memory().await;
    cloud.faults().add(Fault::new(On::Any, Effect::Status { status: 503, happened: false }));
    for _ in 0..160 {
        get(&client, "piece").await.unwrap_err();
    }
    assert_eq!(cloud.journal().count(0, Some(Operation::Get), &Keys::Exact("piece".into())), 160);
    assert_eq!(cloud.journal().counters().ended(Operation::Get, Outcome::Answered(503)), 160);
}

#[tokio::test]
async fn resets_before_and_after() {
    let (cloud, client) = memory().await;
    cloud.faults().add(Fault::new(On::Put, Effect::Reset { happened: false }).key("before"));
    cloud.faults().add(Fault::new(On::Put, Effect::Reset { happened: true }).key("after"));
    put(&client, "before").await.unwrap_err();
    put(&client, "after").await.unwrap_err();
    let keys: Vec<_> = cloud.objects().all(BUCKET, "").into_iter().map(|facts| facts.key).collect();
    assert_eq!(keys, ["after"]);
    assert_eq!(cloud.journal().counters().ended(Operation::Put, Outcome::Reset), 2);

    cloud.faults().add(Fault::new(On::Get, Effect::Reset { happened: false }).times(1));
    let mut raw = tokio::net::TcpStream::connect(cloud.addr()).await.unwrap();
    raw.write_all(b"GET /segments/after HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let error = raw.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    put(&client, "other").await.unwrap();
}

#[tokio::test]
async fn silence_where_the_put_did_not_happen_and_where_it_did() {
    let (cloud, client) = impatient().await;
    cloud.faults().add(Fault::new(On::Put, Effect::HangBefore).key("before"));
    cloud.faults().add(Fault::new(On::Put, Effect::HangAfter { answer_after_ms: None }).key("after"));
    put(&client, "before").await.unwrap_err();
    put(&client, "after").await.unwrap_err();
    assert!(cloud.objects().facts(BUCKET, "before").is_err());
    assert!(cloud.objects().facts(BUCKET, "after").is_ok());
    let abandoned = |counters: &Counters| counters.ended(Operation::Put, Outcome::Abandoned) == 2;
    timeout(SOON, cloud.journal().until(abandoned)).await.expect("both are seen to go away");
    cloud.faults().add(Fault::new(On::Put, Effect::HangAfter { answer_after_ms: Some(1) }).key("slowly"));
    put(&super::client(&cloud), "slowly").await.unwrap();
}

#[tokio::test]
async fn a_late_put_appears_after_its_error() {
    let (cloud, client) = impatient().await;
    cloud.faults().add(Fault::new(On::Put, Effect::LatePut { store_after_ms: 50, status: Some(500) }).key("error"));
    cloud.faults().add(Fault::new(On::Put, Effect::LatePut { store_after_ms: 500, status: None }).key("silent"));
    for key in ["error", "silent"] {
        put(&client, key).await.unwrap_err();
        let appears = cloud.objects().until(|objects| objects.facts(BUCKET, key).is_ok());
        timeout(SOON, appears).await.expect("it is stored late");
        assert_eq!(cloud.objects().body(BUCKET, key).unwrap(), pattern(100_000));
    }
    assert_eq!(cloud.journal().counters().of(Operation::Put), 3);
}

#[tokio::test]
async fn wrong_and_opaque_etags() {
    let (cloud, client) = memory().await;
    let right = Some(etag(&pattern(100_000)));
    for (effect, length) in [(Effect::WrongEtag, 34), (Effect::OpaqueEtag, 18)] {
        cloud.faults().add(Fault::new(On::Any, effect));
        let told = put(&client, "a").await.unwrap().e_tag;
        assert_ne!(told, right);
        assert_eq!(told.as_ref().map(String::len), Some(length));
        assert_eq!(client.head(&Path::from("a")).await.unwrap().e_tag, told);
        let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
        assert_eq!(listed[0].e_tag, told);
        cloud.faults().heal();
    }
    assert_eq!(client.head(&Path::from("a")).await.unwrap().e_tag, right);
}

#[tokio::test]
async fn truncated_and_damaged_bodies() {
    let (cloud, client) = memory().await;
    put(&client, "a").await.unwrap();
    let whole = pattern(100_000);
    let truncate = |honest| Fault::new(On::Get, Effect::Truncate { keep_bytes: 10, honest }).times(1);
    cloud.faults().add(truncate(false));
    get(&client, "a").await.unwrap_err();
    cloud.faults().add(truncate(true));
    let answer = client.get(&Path::from("a")).await.unwrap().bytes().await.unwrap();
    assert_eq!(answer, whole.slice(..10));
    cloud.faults().add(Fault::new(On::Get, Effect::FlipBit { bit: 8 * 70_000 + 1 }).times(1));
    let damaged = get(&client, "a").await.unwrap();
    let differ: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != damaged[*at]).collect();
    assert_eq!((differ, damaged[70_000] ^ whole[70_000]), (vec![70_000], 2));
    assert_eq!(get(&client, "a").await.unwrap(), whole);
}

#[tokio::test]
async fn objects_lost_behind_their_receipt() {
    let (cloud, client) = memory().await;
    cloud.faults().add(Fault::new(On::Put, Effect::Lose { after_ms: 0 }).key("at-once"));
    cloud.faults().add(Fault::new(On::Put, Effect::Lose { after_ms: 20 }).key("later"));
    assert_eq!(put(&client, "at-once").await.unwrap().e_tag, Some(etag(&pattern(100_000))));
    assert!(matches!(get(&client, "at-once").await, Err(object_store::Error::NotFound { .. })));
    put(&client, "later").await.unwrap();
    let lost = cloud.objects().until(|objects| objects.facts(BUCKET, "later").is_err());
    timeout(SOON, lost).await.expect("it is lost later");
}

#[tokio::test]
async fn revoked_credentials() {
    let (cloud, client) = memory().await;
    cloud.faults().add(Fault::new(On::Any, Effect::Denied));
    let denied = |error: object_store::Error| matches!(error, object_store::Error::PermissionDenied { .. });
    assert!(denied(put(&client, "a").await.unwrap_err()));
    assert!(denied(get(&client, "a").await.unwrap_err()));
    cloud.faults().heal();
    put(&client, "a").await.unwrap();
}

#[tokio::test]
async fn slow_bodies_and_slow_answers() {
    let (cloud, client) = impatient().await;
    // 100,000 bytes take 100 s at this speed, which the client does not wait for.
    cloud.faults().add(Fault::new(On::Any, Effect::Slow { bytes_per_s: 1_000 }));
    put(&client, "a").await.unwrap_err();
    get(&client, "old").await.unwrap_err();
    assert!(cloud.objects().facts(BUCKET, "a").is_err());
    cloud.faults().heal();
    let patient = super::client(&cloud);
    cloud.faults().add(Fault::new(On::Any, Effect::Slow { bytes_per_s: 100_000_000 }).times(2));
    put(&patient, "a").await.unwrap();
    assert_eq!(get(&patient, "a").await.unwrap(), pattern(100_000));
    cloud.faults().add(Fault::new(On::Any, Effect::Slowly).delay_ms(60_000));
    get(&client, "a").await.unwrap_err();
}
