//! What clients do while a cloud is away, and that the cloud has all of it when it is back.

use anyhow::Result;
use std::collections::BTreeMap;
use tests::{
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    nfs3::Nfs3,
    proof::contents,
};

type Files = BTreeMap<String, Vec<u8>>;

/// Bytes that differ by their seed and do not compress away.
fn data(seed: &str, len: usize) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    (0..=len / 32).flat_map(|block| Sha256::digest(format!("{seed} {block}"))).take(len).collect()
}

/// What is deleted in the outage; it fills segments of its own, so that they are deleted too.
const DOOMED: &[&str] = &["deleted", "again"];

/// What else is changed.
const OTHERS: &[&str] = &["kept", "overwritten", "appended", "renamed", "replaced", "replacing"];

/// Before the outage: something of everything that will be changed.
async fn prepare(client: &Nfs3, dir: &str, names: &[&str], files: &mut Files) -> Result<()> {
    let handle = client.make_dirs(dir).await?;
    for name in names {
        let data = data(&format!("{dir} {name}"), 10_000 + name.len() * 1_000);
        client.put_in(&handle, name, &data).await?;
        files.insert(format!("{dir}/{name}"), data);
    }
    Ok(())
}

/// In the outage: create, overwrite, append, rename, rename over another file, delete, delete and create again.
async fn work(client: &Nfs3, dir: &str, files: &mut Files) -> Result<()> {
    let path = |name: &str| format!("{dir}/{name}");
    let (handle, _) = client.walk(dir).await?;
    for (name, len) in [("created", 700_000), ("overwritten", 4_000)] {
        let data = data(&format!("{dir} {name} in the outage"), len);
        client.put_in(&handle, name, &data).await?;
        files.insert(path(name), data);
    }
    let appended = files.get_mut(&path("appended")).expect("it was prepared");
    let (file, attr) = client.lookup(&handle, "appended").await?;
    assert_eq!(attr.size, appended.len() as u64);
    let more = data(&format!("{dir} more"), 50_000);
    client.write_at(&file, attr.size, &more).await?;
    appended.extend(more);
    for (from, to) in [("renamed", "has a new name"), ("replacing", "replaced")] {
        client.rename((&handle, from), (&handle, to)).await?;
        let moved = files.remove(&path(from)).expect("it was prepared");
        files.insert(path(to), moved);
    }
    for name in DOOMED {
        client.remove(&handle, name).await?;
        files.remove(&path(name));
    }
    let again = data(&format!("{dir} again in the outage"), 9_000);
    client.put_in(&handle, "again", &again).await?;
    files.insert(path("again"), again);
    Ok(())
}

/// Scene 5 of the acceptance list, for the active cloud and then for the standby: whatever clients at all three sites do
/// while a cloud is away, each to files that were made at another site, is in that cloud after the resync, and what
/// they deleted is not.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_in_an_outage_is_in_both_clouds_afterwards() {
    let mut clouds = TwoClouds::start().await.unwrap();
    let mesh = MeshOfFilers::start(Plan::new("outage", clouds.places().unwrap())).await.unwrap();
    let mut clients = vec![];
    for site in &mesh.sites {
        clients.push(site.mount().await.unwrap());
    }
    let mut files = Files::new();
    for (round, cloud) in ["east", "west"].into_iter().enumerate() {
        for names in [DOOMED, OTHERS] {
            for (site, client) in mesh.sites.iter().zip(&clients) {
                prepare(client, &format!("{}-{cloud}", site.name()), names, &mut files).await.unwrap();
            }
            mesh.until_all_well().await.unwrap();
        }
        let failed = if cloud == "east" { &mut clouds.east } else { &mut clouds.west };
        failed.kill().unwrap();
        for (at, client) in clients.iter().enumerate() {
            let dir = format!("{}-{cloud}", mesh.sites[(at + 1) % 3].name());
            work(client, &dir, &mut files).await.unwrap();
        }
        let misses = |status: &::filer::admin::Status| {
            let cloud = &status.clouds[round];
            cloud.missed_puts > 0 && cloud.missed_deletes > 0 && status.active != cloud.name
        };
        mesh.until_all("puts and deletes are on record as missed", misses).await.unwrap();
        for site in &mesh.sites {
            tests::proof::site_reads_right(site, &contents(&files)).await.unwrap();
        }
        failed.start_again().await.unwrap();
        mesh.prove(&contents(&files)).await.unwrap();
        let status = mesh.sites[1].until("it can take another failure", SOON, |s| s.absorbs_failure).await.unwrap();
        assert_eq!(status.active, "east");
    }
}
