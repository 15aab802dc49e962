//! The server through a real S3 client, and every fault shown. No client retries here: one call is one request.

use super::*;
use crate::process::temp_dir;
use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use std::time::Duration;
use tokio::time::timeout;

mod faulty;

const BUCKET: &str = "segments";

/// Long enough for anything that comes at all.
const SOON: Duration = Duration::from_secs(10);

/// How long a client waits for an answer that may not come.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

fn client(cloud: &TestCloud) -> AmazonS3 {
    client_within(cloud, SOON, &cloud.options().secret_key)
}

fn client_within(cloud: &TestCloud, within: Duration, secret_key: &str) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..Default::default() };
    AmazonS3Builder::new()
        .with_endpoint(cloud.url())
        .with_bucket_name(cloud.bucket())
        .with_region("us-east-1")
        .with_access_key_id(&cloud.options().access_key)
        .with_secret_access_key(secret_key)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(within))
        .with_retry(retry)
        .build()
        .expect("all that a client needs")
}

async fn memory() -> (TestCloud, AmazonS3) {
    let cloud = TestCloud::start(Options::memory(BUCKET)).await.expect("a free port");
    let client = client(&cloud);
    (cloud, client)
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hex(&Md5::digest(body)))
}

/// All that a client of a correct server may expect.
async fn behaves(cloud: &TestCloud) {
    let client = client(cloud);
    let big = pattern(3 << 20);
    for (key, body) in [("a/1", pattern(10)), ("a/2", pattern(0)), ("a/3 +%41", pattern(70_000)), ("b", big.clone())] {
        let put = client.put(&Path::from(key), body.clone().into()).await.unwrap();
        assert_eq!(put.e_tag, Some(etag(&body)), "{key}");
        let get = client.get(&Path::from(key)).await.unwrap();
        assert_eq!(get.meta.e_tag, Some(etag(&body)));
        assert_eq!(get.bytes().await.unwrap(), body, "{key}");
        let head = client.head(&Path::from(key)).await.unwrap();
        assert_eq!((head.size, head.e_tag), (body.len() as u64, Some(etag(&body))));
    }
    for range in [0..1, 5..2_000_000, (3 << 20) - 1..3 << 20] {
        let part = client.get_range(&Path::from("b"), range.clone()).await.unwrap();
        assert_eq!(part, big.slice(range.start as usize..range.end as usize));
    }
    let beyond = client.get_range(&Path::from("b"), 3 << 20..4 << 20).await;
    assert!(beyond.is_err());

    let listed: Vec<_> = client.list(Some(&Path::from("a"))).try_collect().await.unwrap();
    let keys: Vec<_> = listed.iter().map(|object| object.location.to_string()).collect();
    assert_eq!(keys, ["a/1", "a/2", Path::from("a/3 +%41").as_ref()]);
    assert_eq!(listed[0].e_tag, Some(etag(&pattern(10))));
    let behind: Vec<_> = client.list_with_offset(None, &Path::from("a/2")).try_collect().await.unwrap();
    assert_eq!(behind.len(), 2);
    let folders = client.list_with_delimiter(None).await.unwrap();
    assert_eq!(folders.common_prefixes, [Path::from("a")]);
    assert_eq!(folders.objects.len(), 1);

    // Replacing, and putting only where nothing is.
    let put = client.put(&Path::from("a/1"), pattern(11).into()).await.unwrap();
    assert_eq!(put.e_tag, Some(etag(&pattern(11))));
    let create = client.put_opts(&Path::from("a/1"), pattern(1).into(), PutMode::Create.into()).await;
    assert!(matches!(create, Err(object_store::Error::AlreadyExists { .. })), "{create:?}");
    assert_eq!(client.get(&Path::from("a/1")).await.unwrap().bytes().await.unwrap(), pattern(11));

    client.delete(&Path::from("a/1")).await.unwrap();
    client.delete(&Path::from("a/1")).await.unwrap();
    let gone = client.get(&Path::from("a/1")).await;
    assert!(matches!(gone, Err(object_store::Error::NotFound { .. })), "{gone:?}");
    assert_eq!(cloud.journal().counters().of(Operation::Delete), 2);
    assert_eq!(cloud.journal().count(0, Some(Operation::Delete), &Keys::Exact("a/1".into())), 2);
    assert_eq!(cloud.journal().counters().ended(Operation::Get, Outcome::Answered(404)), 1);
}

#[tokio::test]
async fn memory_behaves() {
    let (cloud, _) = memory().await;
    behaves(&cloud).await;
}

#[tokio::test]
async fn a_folder_behaves_and_outlives_its_server() {
    let folder = temp_dir("cloud").unwrap();
    let options = Options::directory(folder.path(), BUCKET);
    let cloud = TestCloud::start(options.clone()).await.unwrap();
    behaves(&cloud).await;
    let (addr, held) = (cloud.addr(), cloud.objects().all(BUCKET, ""));
    assert_eq!(held.len(), 3);
    cloud.stop().await;

    // The same port and the same objects; what was on its way in is gone.
    std::fs::write(folder.path().join(".incoming/7"), "half a put").unwrap();
    let cloud = TestCloud::start(options.listen(addr)).await.unwrap();
    assert_eq!(cloud.addr(), addr);
    let again = cloud.objects().all(BUCKET, "");
    let facts =
        |held: &[Facts]| held.iter().map(|facts| (facts.key.clone(), facts.md5, facts.bytes)).collect::<Vec<_>>();
    assert_eq!(facts(&again), facts(&held));
    assert_eq!(std::fs::read_dir(folder.path().join(".incoming")).unwrap().count(), 0);
    assert_eq!(cloud.objects().body(BUCKET, "b").unwrap(), pattern(3 << 20));
}

#[tokio::test]
async fn listings_come_in_pages() {
    let (cloud, client) = memory().await;
    for at in 0..1_005 {
        let mut incoming = cloud.objects().incoming(None).unwrap();
        incoming.write(b"x").unwrap();
        let received = incoming.finish().unwrap();
        cloud.objects().publish(BUCKET, &format!("k/{at:05}"), received, &Default::default()).unwrap();
    }
    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1_005);
    assert!(listed.is_sorted_by_key(|object| object.location.clone()));
    assert_eq!(cloud.journal().counters().of(Operation::List), 2);
}

#[tokio::test]
async fn a_wrong_content_md5_stores_nothing() {
    let (cloud, client) = memory().await;
    let path = Path::from("checked");
    let put = async |md5: &str| {
        use object_store::signer::Signer;
        let url = client.signed_url(http_method("PUT"), &path, SOON).await.unwrap();
        let headers = [("content-md5", md5.to_string())];
        let path = format!("{}?{}", url.path(), url.query().unwrap());
        crate::http::request(cloud.addr(), "PUT", &path, &headers, "hello").await.unwrap()
    };
    let answer = put("AAAAAAAAAAAAAAAAAAAAAA==").await;
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("<Code>BadDigest</Code>"), "{answer:?}");
    assert!(cloud.objects().all(BUCKET, "").is_empty());
    assert_eq!(put("nonsense").await.status, 400);
    assert_eq!(put("XUFAKrxLKna5cZ2REBfFkg==").await.status, 200);
    assert_eq!(cloud.objects().body(BUCKET, "checked").unwrap(), "hello");
}

fn http_method(name: &str) -> hyper::Method {
    name.parse().expect("a method")
}

#[tokio::test]
async fn strangers_are_refused() {
    let (cloud, _) = memory().await;
    let stranger = client_within(&cloud, SOON, "another-secret");
    let error = stranger.put(&Path::from("a"), "x".into()).await.unwrap_err();
    assert!(matches!(error, object_store::Error::PermissionDenied { .. }), "{error:?}");
    let anonymous = crate::http::request(cloud.addr(), "GET", "/segments/a", &[], "").await.unwrap();
    assert_eq!(anonymous.status, 403);
}

#[tokio::test]
async fn small_objects_are_answered_without_delay() {
    let (cloud, client) = memory().await;
    client.put(&Path::from("small"), pattern(1_000).into()).await.unwrap();
    let all = async {
        for _ in 0..1_000 {
            client.get(&Path::from("small")).await.unwrap().bytes().await.unwrap();
        }
    };
    // With a delayed acknowledgement each (40 ms) they would take forty seconds.
    timeout(Duration::from_secs(30), all).await.expect("no delayed acknowledgements");
    assert_eq!(cloud.journal().counters().bytes_out, 1_000_000);
}

#[tokio::test]
async fn the_admin_port_steers() {
    let options = Options::memory(BUCKET).admin((Ipv4Addr::LOCALHOST, 0).into());
    let cloud = TestCloud::start(options).await.unwrap();
    let (client, remote) = (client(&cloud), RemoteCloud::new(cloud.admin_addr().expect("asked for")));
    let id = remote.add(&Fault::new(On::Put, Effect::Status { status: 503, happened: false }).times(1)).await.unwrap();
    assert_eq!(remote.faults().await.unwrap(), cloud.faults().active());
    client.put(&Path::from("a"), "hello".into()).await.unwrap_err();
    assert!(remote.remove(id).await.is_err(), "healed by its number of requests");
    client.put(&Path::from("a"), "hello".into()).await.unwrap();
    remote.add(&Fault::new(On::Any, Effect::Denied)).await.unwrap();
    remote.heal().await.unwrap();
    assert_eq!(remote.counters().await.unwrap(), cloud.journal().counters());
    assert_eq!(remote.counters().await.unwrap().of(Operation::Put), 2);
    let log = remote.log(1).await.unwrap();
    assert_eq!((log.len(), &*log[0].key, log[0].outcome), (1, "a", Outcome::Answered(200)));
    assert_eq!(remote.objects(BUCKET, "a").await.unwrap()[0].bytes, 5);
    remote.rot(BUCKET, "a", 0).await.unwrap();
    assert_eq!(client.get(&Path::from("a")).await.unwrap().bytes().await.unwrap(), "iello");
    remote.lose(BUCKET, "a").await.unwrap();
    assert!(remote.lose(BUCKET, "a").await.is_err());
}
