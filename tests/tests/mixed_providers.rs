//! One cloud speaks S3 (rclone's server), the other Azure Blob (Azurite): two protocols by two makers, neither of them us.
//! Receipts of both kinds, bodies that are refused, a failure of each and its return.

use bytes::Bytes;
use storage::{
    cloud::{CloudError, Proof},
    cloudfs::CloudState,
    clouds::conformance::conformance,
    ids::{CloudId, Md5},
};
use tests::{
    azurite::Azurite,
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan, SOON},
    nfs3::Nfs3,
    process::temp_dir,
    proof::{Contents, contents, site_reads_right},
    rclone::Rclone,
    sites::Site,
};

/// Files of the tree, over some directories and of sizes from nothing to more than a segment.
const FILES: usize = 24;

/// The largest of them, in bytes: more than fits into one segment.
const LARGE_BYTES: usize = 9 << 20;

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    (0..=len / 32).flat_map(|block| Sha256::digest(format!("{seed} {block}"))).take(len).collect()
}

/// A client, and what must be there.
struct Tree {
    client: Nfs3,
    wanted: Contents,
}

impl Tree {
    async fn put(&mut self, path: &str, len: usize) {
        let data = noise(path, len);
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.client.make_dirs(dir).await.unwrap();
        }
        self.client.put(path, &data).await.unwrap();
        self.wanted.extend(contents(&[(path.to_string(), data)].into()));
    }

    async fn remove(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (dir, _) = self.client.walk(dir).await.unwrap();
        self.client.remove(&dir, name).await.unwrap();
        self.wanted.remove(path);
    }
}

/// Both providers do what every cloud must do, prove a put by the MD5 in their own answer, and refuse one whose
/// Content-MD5 is not that of its body with 400, and keep nothing of it.
async fn providers_prove_and_refuse(site: &Site) {
    for id in CloudId::BOTH {
        let cloud = site.cloud(id).unwrap();
        conformance(&*cloud).await;
        let body = Bytes::from(noise("a receipt", 100_000));
        let receipt = cloud.put("receipts/right", body.clone(), Md5::of(&body)).await.unwrap();
        assert_eq!((receipt.md5, receipt.proof), (Md5::of(&body), Proof::Answer), "cloud {id}");
        assert_eq!(cloud.head("receipts/right").await.unwrap().md5, Some(Md5::of(&body)), "cloud {id}");
        let refused = cloud.put("receipts/wrong", body.clone(), Md5::of(b"something else")).await.unwrap_err();
        assert!(refused.to_string().contains("400 Bad Request"), "{refused:?}");
        let head = cloud.head("receipts/wrong").await;
        assert!(matches!(head, Err(CloudError::NotFound { .. })), "cloud {id} kept it: {head:?}");
        let listed = cloud.list("receipts/", None).await.unwrap();
        assert_eq!(listed.objects.iter().map(|object| &*object.key).collect::<Vec<_>>(), ["receipts/right"]);
        cloud.delete("receipts/right").await.unwrap();
    }
}

/// A CloudFS in S3 and Azure takes a tree, fails over from the one to the other and back, and gives each what it missed:
/// every byte is proved at every site and from each provider alone.
#[tokio::test(flavor = "multi_thread")]
async fn s3_and_azure_together_give_receipts_and_survive_each_other() {
    let folder = temp_dir("providers").unwrap();
    let at = folder.path();
    let mut s3 = Rclone::start(at, "files").await.unwrap();
    let mut azurite = Azurite::start(at, "files").await.unwrap();
    let places = [CloudPlace::rclone("s3", &s3, at).unwrap(), CloudPlace::azure("azure", &azurite, at).unwrap()];
    let mesh = MeshOfFilers::start(Plan::new("providers", places).sites(&["ams", "nyc"])).await.unwrap();
    let (ams, nyc) = (&mesh.sites[0], &mesh.sites[1]);
    providers_prove_and_refuse(ams).await;

    let mut tree = Tree { client: ams.mount().await.unwrap(), wanted: Contents::new() };
    for n in 0..FILES {
        let len = if n == FILES - 1 { LARGE_BYTES } else { n * n * 700 };
        tree.put(&format!("dir-{}/file-{n}", n % 5), len).await;
    }
    mesh.prove(&tree.wanted).await.unwrap();

    // The active cloud dies without warning: the CloudFS moves to the other provider, and back when it has everything.
    s3.kill().unwrap();
    tree.put("s3 is away/new", 50_000).await;
    tree.put("dir-1/file-1", 6_000).await;
    tree.remove(&format!("dir-{}/file-{}", (FILES - 1) % 5, FILES - 1)).await;
    let moved = |status: &::filer::admin::Status| {
        let s3 = &status.clouds[0];
        status.active == "azure" && s3.state == CloudState::Failed && s3.missed_puts > 0 && s3.missed_deletes > 0
    };
    mesh.until_all("the CloudFS has moved from S3 to Azure, and what S3 misses is on record", moved).await.unwrap();
    site_reads_right(nyc, &tree.wanted).await.unwrap();
    s3.start_again().await.unwrap();
    mesh.prove(&tree.wanted).await.unwrap();

    // The standby ends: the roles stay, and it gets what it missed too. It is asked to end, as Azurite writes down what it
    // holds now and then, and when it is told to stop.
    azurite.process().terminate(SOON).await.unwrap();
    tree.put("azure is away/new", 300_000).await;
    tree.remove("dir-2/file-2").await;
    let logged = |status: &::filer::admin::Status| {
        let azure = &status.clouds[1];
        status.active == "s3" && azure.state == CloudState::Failed && azure.missed_puts > 0
    };
    mesh.until_all("what Azure misses is on record", logged).await.unwrap();
    let addr = azurite.addr();
    drop(azurite);
    let _azurite = Azurite::start_at(addr, at, "files").await.unwrap();
    mesh.prove(&tree.wanted).await.unwrap();
    let status = ams.until("it can take another failure", SOON, |status| status.absorbs_failure).await.unwrap();
    assert_eq!(status.active, "s3");
}
