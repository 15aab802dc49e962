//! One cloud speaks S3, the other Azure Blob: receipts of both kinds, a failure of the one and its return.

use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};
use storage::{
    cloud::{CloudError, Proof},
    cloudfs::CloudState,
    ids::{CloudId, Md5},
};
use tests::{
    azurite::Azurite,
    cloud::CloudProcess,
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan, SOON},
    process::temp_dir,
    proof::contents,
};

const FILES: u64 = 12;

/// Both providers prove a put by the MD5 in their own answer, and refuse a put whose Content-MD5 is not that of its body.
/// A CloudFS in the two fails over from the one to the other, and back, with every byte.
#[tokio::test(flavor = "multi_thread")]
async fn s3_and_azure_together_give_receipts_and_survive_each_other() {
    let folder = temp_dir("providers").unwrap();
    let at = folder.path();
    let s3 = CloudProcess::start("east", at, "files").await.unwrap();
    let mut azurite = Azurite::start(at, "files").await.unwrap();
    let places = [CloudPlace::azure("azure", &azurite, at).unwrap(), CloudPlace::s3("s3", &s3, at).unwrap()];
    let mesh = MeshOfFilers::start(Plan::new("providers", places).sites(&["ams", "nyc"])).await.unwrap();
    let (ams, nyc) = (&mesh.sites[0], &mesh.sites[1]);

    let body = Bytes::from_static(b"what a receipt is for");
    for id in CloudId::BOTH {
        let cloud = ams.cloud(id).unwrap();
        let receipt = cloud.put("receipts/right", body.clone(), Md5::of(&body)).await.unwrap();
        assert_eq!((receipt.md5, receipt.proof), (Md5::of(&body), Proof::Answer), "cloud {id}");
        let refused = cloud.put("receipts/wrong", body.clone(), Md5::of(b"something else")).await;
        assert!(refused.is_err(), "cloud {id} took a body that is not what its Content-MD5 says: {refused:?}");
        let head = cloud.head("receipts/wrong").await;
        assert!(matches!(head, Err(CloudError::NotFound { .. })), "cloud {id} kept it: {head:?}");
        cloud.delete("receipts/right").await.unwrap();
    }

    let (client, other) = (ams.mount().await.unwrap(), nyc.mount().await.unwrap());
    let mut files = BTreeMap::new();
    let mut put = async |name: String| {
        let data = name.repeat(5_000).into_bytes();
        client.put(&name, &data).await.unwrap();
        files.insert(name, data);
    };
    for n in 0..FILES {
        put(format!("before-{n}")).await;
    }
    mesh.until_all_well().await.unwrap();
    // Asked to end: Azurite writes down what it holds now and then, and when it is told to stop.
    azurite.process().terminate(SOON).await.unwrap();
    for n in 0..FILES {
        put(format!("in the outage-{n}")).await;
    }
    let moved = |status: &::filer::admin::Status| status.active == "s3" && status.clouds[0].state == CloudState::Failed;
    mesh.until_all("the CloudFS has moved from Azure to S3", moved).await.unwrap();
    let (dir, _) = other.walk("").await.unwrap();
    other.remove(&dir, "before-0").await.unwrap();
    files.remove("before-0");
    let addr = azurite.addr();
    drop(azurite);
    let _azurite = Azurite::start_at(addr, at, "files").await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    let status = ams.until("Azure is active again", Duration::from_secs(1) + SOON, |s| s.active == "azure").await;
    assert!(status.unwrap().absorbs_failure);
}
