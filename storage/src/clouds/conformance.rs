//! What every cloud must do, run against each kind: a directory, test servers, real servers.
//!
//! Every key it uses lies below `conformance/`, and all of them are deleted again.

use crate::{
    cloud::{Cloud, CloudError, Listed},
    ids::Md5,
};
use bytes::Bytes;

const ROOT: &str = "conformance";
/// More objects than one page holds are made only for back ends that are quick; this many are enough to page by hand.
const LISTED: usize = 7;

/// Runs the whole suite.
///
/// # Panics
/// When the cloud does not conform. It is a test, and its messages say what was expected.
pub async fn conformance(cloud: &dyn Cloud) {
    clean(cloud).await;
    puts_are_proved_and_read_back(cloud).await;
    ranges_are_exact(cloud).await;
    the_same_bytes_can_be_put_again(cloud).await;
    a_wrong_md5_is_never_proved(cloud).await;
    missing_objects_are_named(cloud).await;
    empty_objects_are_objects(cloud).await;
    eight_mib_come_back_whole(cloud).await;
    listings_page_in_order(cloud).await;
    cloud.probe(&key("probe"), Bytes::from_static(b"probe")).await.expect("a probe of a healthy cloud succeeds");
    clean(cloud).await;
    assert!(all(cloud, ROOT).await.is_empty(), "nothing is listed once everything is deleted");
}

fn key(name: &str) -> String {
    format!("{ROOT}/{name}")
}

async fn put(cloud: &dyn Cloud, key: &str, body: &Bytes) {
    let md5 = Md5::of(body);
    let receipt = cloud.put(key, body.clone(), md5).await.unwrap_or_else(|err| panic!("put {key}: {err}"));
    assert_eq!((receipt.md5, receipt.bytes), (md5, body.len() as u64), "the receipt of {key}");
}

async fn clean(cloud: &dyn Cloud) {
    for object in all(cloud, ROOT).await {
        cloud.delete(&object.key).await.expect("delete");
    }
}

async fn all(cloud: &dyn Cloud, prefix: &str) -> Vec<Listed> {
    all_after(cloud, prefix, None).await
}

async fn all_after(cloud: &dyn Cloud, prefix: &str, after: Option<&str>) -> Vec<Listed> {
    let (mut objects, mut more) = (Vec::<Listed>::new(), true);
    while more {
        let after = objects.last().map(|last| last.key.clone()).or(after.map(str::to_owned));
        let page = cloud.list(prefix, after.as_deref()).await.expect("list");
        assert!(!page.more || !page.objects.is_empty(), "an empty page is the last");
        more = page.more;
        objects.extend(page.objects);
    }
    assert!(objects.windows(2).all(|pair| pair[0].key < pair[1].key), "listings are in order, each key once");
    objects
}

async fn puts_are_proved_and_read_back(cloud: &dyn Cloud) {
    let (key, body) = (key("deep/er/object"), Bytes::from_static(b"the quick brown fox"));
    put(cloud, &key, &body).await;
    assert_eq!(cloud.get(&key, 0..body.len() as u64).await.expect("get"), body);
    let head = cloud.head(&key).await.expect("head");
    assert_eq!((head.key.as_str(), head.bytes), (key.as_str(), body.len() as u64));
    assert!(head.md5.is_none_or(|md5| md5 == Md5::of(&body)), "a head tells the right MD5 or none");
}

async fn ranges_are_exact(cloud: &dyn Cloud) {
    let (key, body) = (key("ranges"), Bytes::from((0..=255).collect::<Vec<u8>>()));
    put(cloud, &key, &body).await;
    for range in [0..1, 0..256, 255..256, 17..99, 40..40] {
        let expected = &body[range.start as usize..range.end as usize];
        assert_eq!(cloud.get(&key, range.clone()).await.expect("get"), expected, "{range:?}");
    }
    for range in [0..257, 255..300, 256..257, 1_000..1_001] {
        let got = cloud.get(&key, range.clone()).await;
        assert!(matches!(got, Err(CloudError::Corrupt { .. })), "{range:?} is longer than the object: {got:?}");
    }
}

async fn the_same_bytes_can_be_put_again(cloud: &dyn Cloud) {
    let (key, body) = (key("again"), Bytes::from_static(b"same"));
    for _ in 0..3 {
        put(cloud, &key, &body).await;
    }
    assert_eq!(cloud.get(&key, 0..4).await.expect("get"), body);
}

async fn a_wrong_md5_is_never_proved(cloud: &dyn Cloud) {
    let (key, body, wrong) = (key("wrong"), Bytes::from_static(b"bytes"), Md5::of(b"other bytes"));
    let refused = cloud.put(&key, body, wrong).await;
    assert!(
        matches!(refused, Err(CloudError::Corrupt { .. } | CloudError::Failed { .. })),
        "a body that is not what was announced: {refused:?}"
    );
    cloud.delete(&key).await.expect("delete");
}

async fn missing_objects_are_named(cloud: &dyn Cloud) {
    let missing = key("missing");
    let not_found = CloudError::NotFound { key: missing.clone() };
    assert_eq!(cloud.get(&missing, 0..1).await, Err(not_found.clone()));
    assert_eq!(cloud.get(&missing, 0..0).await, Err(not_found.clone()));
    assert_eq!(cloud.head(&missing).await, Err(not_found));
    cloud.delete(&missing).await.expect("what is not there counts as deleted");
    put(cloud, &missing, &Bytes::from_static(b"x")).await;
    cloud.delete(&missing).await.expect("delete");
    assert!(matches!(cloud.get(&missing, 0..1).await, Err(CloudError::NotFound { .. })), "deleted is gone");
    cloud.delete(&missing).await.expect("delete again");
}

async fn empty_objects_are_objects(cloud: &dyn Cloud) {
    let key = key("empty");
    put(cloud, &key, &Bytes::new()).await;
    assert_eq!(cloud.head(&key).await.expect("head").bytes, 0);
    assert_eq!(cloud.get(&key, 0..0).await.expect("get"), Bytes::new());
    assert!(matches!(cloud.get(&key, 0..1).await, Err(CloudError::Corrupt { .. })), "no byte to get");
}

async fn eight_mib_come_back_whole(cloud: &dyn Cloud) {
    let (key, bytes) = (key("large"), 8u64 << 20);
    // Bytes that repeat nowhere nearby, so that misplaced pieces show.
    let body = Bytes::from(
        (0..bytes / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect::<Vec<_>>(),
    );
    put(cloud, &key, &body).await;
    assert!(cloud.get(&key, 0..bytes).await.expect("get") == body, "8 MiB differ");
    let range = (3 << 20) - 5..(5 << 20) + 7;
    let expected = &body[range.start as usize..range.end as usize];
    assert!(cloud.get(&key, range.clone()).await.expect("get") == expected, "2 MiB in the middle differ");
    cloud.delete(&key).await.expect("delete");
}

async fn listings_page_in_order(cloud: &dyn Cloud) {
    let below = key("list/");
    let keys: Vec<String> = (0..LISTED).map(|i| format!("{below}{i:04}")).collect();
    for (i, key) in keys.iter().enumerate().rev() {
        put(cloud, key, &Bytes::from(vec![b'x'; i])).await;
    }
    let beside = key("list-beside");
    put(cloud, &beside, &Bytes::new()).await;
    let listed = all(cloud, &below).await;
    assert_eq!(listed.len(), LISTED);
    for (i, (object, key)) in listed.iter().zip(&keys).enumerate() {
        assert_eq!((&object.key, object.bytes), (key, i as u64));
        assert!(object.md5.is_none_or(|md5| md5 == Md5::of(&vec![b'x'; i])), "a listing tells the right MD5 or none");
    }
    for (i, key) in keys.iter().enumerate() {
        let listed = all_after(cloud, &below, Some(key)).await;
        let listed: Vec<_> = listed.iter().map(|object| &object.key).collect();
        assert_eq!(listed, keys[i + 1..].iter().collect::<Vec<_>>(), "after {key}");
    }
    assert_eq!(all(cloud, &key("list")).await.len(), LISTED + 1, "a prefix need not end at a slash");
    assert_eq!(all(cloud, &beside).await.len(), 1, "a whole name is a prefix too");
    let none = cloud.list(&key("no-such-prefix"), None).await.expect("list");
    assert!(none.objects.is_empty() && !none.more);
}
