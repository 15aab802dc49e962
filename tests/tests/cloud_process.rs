//! The test cloud as a process of its own: killed, started again, stopped.

use md5::{Digest, Md5};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use tests::cloud::{CloudProcess, Effect, Fault, On, Operation, hex};
use tests::process::temp_dir;

const BUCKET: &str = "segments";

#[tokio::test]
async fn a_killed_cloud_comes_back_with_its_objects() {
    let folder = temp_dir("cloud-process").unwrap();
    let mut cloud = CloudProcess::start("east", folder.path(), BUCKET).await.unwrap();
    let addr = cloud.addr();
    let store = AmazonS3Builder::new()
        .with_endpoint(cloud.url())
        .with_bucket_name(cloud.bucket())
        .with_access_key_id(CloudProcess::ACCESS_KEY)
        .with_secret_access_key(CloudProcess::SECRET_KEY)
        .with_allow_http(true)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .build()
        .unwrap();
    let path = Path::from("a");
    store.put(&path, "hello".into()).await.unwrap();
    cloud.kill().unwrap();
    store.get(&path).await.unwrap_err();

    let missing = Fault::new(On::Get, Effect::Status { status: 404, happened: false }).times(1);
    cloud.start_again_with(&[missing]).await.unwrap();
    assert_eq!(cloud.addr(), addr);
    assert!(matches!(store.get(&path).await, Err(object_store::Error::NotFound { .. })), "a fault from the start");
    assert_eq!(cloud.remote().objects(BUCKET, "").await.unwrap()[0].md5, hex(&Md5::digest("hello")));
    cloud.remote().add(&Fault::new(On::Get, Effect::Denied).times(1)).await.unwrap();
    store.get(&path).await.unwrap_err();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "hello");
    assert_eq!(cloud.remote().counters().await.unwrap().of(Operation::Get), 3);
    cloud.stop().await.unwrap();
}
