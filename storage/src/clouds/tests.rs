mod mock;

use super::{conformance::conformance, *};
use crate::{
    cloud::{CloudError, Proof},
    ids::Md5,
};
use bytes::Bytes;
use mock::{Fault, Mock, Tags};
use std::{io::Write, sync::atomic::Ordering};

fn s3(mock: &Mock, limits: Limits) -> Arc<dyn Cloud> {
    let settings = serde_form(&format!(
        r#"{{"kind": "s3", "bucket": "bucket", "prefix": "/fs/one/", "endpoint": "{}", "allow_http": true,
            "access_key_id": "id", "secret_access_key": "secret"}}"#,
        mock.url
    ));
    let CloudSettings::S3(s3) = settings else { panic!("the kind is s3") };
    open(&CloudSettings::S3(S3Settings { limits, ..s3 }), "a").expect("open")
}

fn gcs(mock: &Mock) -> Arc<dyn Cloud> {
    let settings = format!(
        r#"{{"kind": "gcs", "bucket": "bucket", "endpoint": "{}", "anonymous": true, "allow_http": true}}"#,
        mock.url
    );
    open(&serde_form(&settings), "b").expect("open")
}

fn serde_form(json: &str) -> CloudSettings {
    serde_json::from_str(json).expect("these settings are well formed")
}

fn hello() -> (Bytes, Md5) {
    let body = Bytes::from_static(b"hello");
    (body.clone(), Md5::of(&body))
}

#[tokio::test]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let settings = DirectorySettings { prefix: "fs".into(), ..DirectorySettings::new(dir.path()) };
    conformance(&*open(&CloudSettings::Directory(settings), "a").unwrap()).await;
}

#[tokio::test]
async fn s3_conforms_whatever_its_tags_are() {
    for tags in [Tags::Md5, Tags::Opaque, Tags::Kms, Tags::Missing] {
        conformance(&*s3(&Mock::start(tags), Limits::default())).await;
    }
}

#[tokio::test]
async fn small_pages_and_sloppy_servers_are_coped_with() {
    let mock = Mock::start(Tags::Md5);
    mock.state.page.store(2, Ordering::Relaxed);
    conformance(&*s3(&mock, Limits::default())).await;
    mock.state.is_sloppy.store(true, Ordering::Relaxed);
    conformance(&*s3(&mock, Limits::default())).await;
}

#[tokio::test]
async fn google_conforms_by_hash_and_by_tag() {
    for tags in [Tags::Md5, Tags::Google, Tags::Opaque] {
        conformance(&*gcs(&Mock::start(tags))).await;
    }
}

#[tokio::test]
async fn proofs_say_where_they_come_from() {
    let (body, md5) = hello();
    let read_back = Limits { always_read_back: true, ..Limits::default() };
    for (tags, limits, proof) in [
        (Tags::Md5, Limits::default(), Proof::Answer),
        (Tags::Md5, read_back, Proof::ReadBack),
        (Tags::Opaque, Limits::default(), Proof::ReadBack),
        (Tags::Kms, Limits::default(), Proof::ReadBack),
        (Tags::Missing, Limits::default(), Proof::ReadBack),
    ] {
        let cloud = s3(&Mock::start(tags), limits);
        let receipt = cloud.put("key", body.clone(), md5).await.unwrap();
        assert_eq!((receipt.md5, receipt.bytes, receipt.proof), (md5, 5, proof), "{tags:?}");
        let told = if proof == Proof::Answer { Some(md5) } else { None };
        assert_eq!(cloud.head("key").await.unwrap().md5, told, "{tags:?}");
        assert_eq!(cloud.list("", None).await.unwrap().objects[0].md5, told, "{tags:?}");
    }
}

#[tokio::test]
async fn objects_that_differ_from_what_was_put_are_corrupt() {
    let (body, md5) = hello();
    for (tags, fault) in [(Tags::Md5, Fault::WrongTag), (Tags::Md5, Fault::Flip), (Tags::Opaque, Fault::Flip)] {
        let mock = Mock::start(tags);
        mock.fail(fault);
        let got = s3(&mock, Limits::default()).put("key", body.clone(), md5).await;
        assert!(matches!(got, Err(CloudError::Corrupt { .. })), "{tags:?} {fault:?}: {got:?}");
    }
    let mock = Mock::start(Tags::Opaque);
    let got = s3(&mock, Limits::default()).put("key", body, Md5::of(b"other")).await;
    assert!(matches!(got, Err(CloudError::Corrupt { .. })), "refused by the server: {got:?}");
    assert_eq!(mock.state.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_is_one_attempt_and_failures_have_kinds() {
    let (body, md5) = hello();
    let limits = Limits { request_timeout_ms: 300, ms_per_mib: 0, ..Limits::default() };
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(418),
        Fault::Status(403),
        Fault::Status(409),
        Fault::Immutable,
        Fault::NoBucket,
        Fault::HangUp,
        Fault::Silent,
    ] {
        let mock = Mock::start(Tags::Md5);
        mock.fail(fault);
        let cloud = s3(&mock, limits.clone());
        let errors = [
            cloud.put("key", body.clone(), md5).await.unwrap_err(),
            cloud.get("key", 0..5).await.unwrap_err(),
            cloud.head("key").await.unwrap_err(),
            cloud.delete("key").await.unwrap_err(),
            cloud.list("", None).await.unwrap_err(),
        ];
        assert_eq!(mock.state.requests.load(Ordering::Relaxed), 5, "{fault:?}");
        for (call, err) in errors.iter().enumerate() {
            let expected = match (fault, err) {
                (Fault::Status(403), CloudError::Denied { .. }) => true,
                // The answer to a HEAD has no body, so it does not tell why.
                (Fault::Immutable, CloudError::Denied { .. }) => call != 2,
                (Fault::Immutable, CloudError::Failed { .. }) => call == 2,
                (Fault::Silent, CloudError::TimedOut { after_ms, .. }) => *after_ms == 300,
                // The answer to a HEAD has no body that could tell a missing bucket from a missing object.
                (Fault::NoBucket, CloudError::NotFound { .. }) => call == 2,
                (Fault::Status(418), CloudError::Failed { why, .. }) => why.contains("418"),
                (Fault::Status(409 | 500 | 503) | Fault::NoBucket | Fault::HangUp, CloudError::Failed { .. }) => true,
                _ => false,
            };
            assert!(expected, "{fault:?}, call {call}: {err:?}");
        }
    }
}

/// What a put has to wait for is not its own body alone.
#[tokio::test]
async fn puts_at_once_have_the_time_for_all_of_their_bodies() {
    let body = Bytes::from(vec![7; 1 << 20]);
    let md5 = Md5::of(&body);
    let limits = Limits { request_timeout_ms: 300, ms_per_mib: 100, ..Limits::default() };
    let mock = Mock::start(Tags::Md5);
    mock.fail(Fault::Silent);
    let cloud = s3(&mock, limits);
    for at_once in [1, 4] {
        let puts = (0..at_once).map(|_| cloud.put("key", body.clone(), md5));
        for got in futures::future::join_all(puts).await {
            let Err(CloudError::TimedOut { after_ms, .. }) = got else { panic!("{got:?}") };
            assert_eq!(after_ms, 300 + at_once * 100);
        }
    }
}

#[tokio::test]
async fn answers_that_are_not_what_was_asked_for_are_refused() {
    let (body, md5) = hello();
    for fault in [Fault::Cut, Fault::WholeObject, Fault::Garbage] {
        let mock = Mock::start(Tags::Md5);
        let cloud = s3(&mock, Limits::default());
        cloud.put("key", body.clone(), md5).await.unwrap();
        mock.fail(fault);
        cloud.get("key", 0..3).await.expect_err("no range");
        if let Fault::Garbage = fault {
            cloud.list("", None).await.expect_err("no listing");
        }
    }
}

#[tokio::test]
async fn nobody_listens() {
    let mut mock = Mock::start(Tags::Md5);
    mock.url = "http://127.0.0.1:1".into();
    let err = s3(&mock, Limits::default()).get("key", 0..1).await.unwrap_err();
    assert!(matches!(&err, CloudError::Failed { why, .. } if why.contains("refused")), "{err}");
}

#[test]
fn settings_read_from_text_and_typing_errors_are_found() {
    let typo = r#"{"kind": "s3", "bucket": "b", "regin": "r"}"#;
    assert!(serde_json::from_str::<CloudSettings>(typo).unwrap_err().to_string().contains("regin"));
    let settings = serde_form(r#"{"kind": "azure", "account": "a", "container": "c", "sas": "sig=1"}"#);
    let again = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_form(&again), settings);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let refusal = |json: &str| open(&serde_form(json), "a").err().expect("refused").to_string();
    assert!(refusal(r#"{"kind": "s3", "bucket": "b", "access_key_id": "i"}"#).contains("secret_access_key"));
    assert!(refusal(r#"{"kind": "s3", "bucket": "b", "prefix": "a//b"}"#).contains("prefix"));
    let no_key = refusal(r#"{"kind": "azure", "account": "a", "container": "c", "access_key": "not base64!"}"#);
    assert!(no_key.contains("setting access_key") && !no_key.contains("not base64!"), "{no_key}");
    assert!(refusal(r#"{"kind": "directory", "path": "/dev/null"}"#).contains("/dev/null"), "it is none");
    let mut pem = tempfile::NamedTempFile::new().unwrap();
    pem.write_all(b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n").unwrap();
    let ca = pem.path().display();
    refusal(&format!(r#"{{"kind": "s3", "bucket": "b", "ca_file": "{ca}"}}"#));
}
