//! Sites that are far from each other.

use std::collections::BTreeMap;
use tests::{
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    proof::contents,
};

/// Longer than the pause between two signs of life of a leader, and than half of the time for an answer, as shipped.
const WAY_MS: u64 = 300;

/// Answers between all filers take 600 ms. They say so, and go on agreeing on what their clients do.
#[tokio::test(flavor = "multi_thread")]
async fn filers_whose_answers_take_longer_than_the_pause_between_signs_of_life_go_on() {
    let clouds = TwoClouds::start().await.unwrap();
    let mut plan = Plan::new("far", clouds.places().unwrap()).wired();
    for as_shipped in ["heartbeat=250 ms", "election_min=1 s", "election_max=2 s", "idle_max=10 s", "dial_max=10 s"] {
        plan = plan.set(&format!("mesh.{as_shipped}"));
    }
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let epoch = mesh.epoch().await.unwrap();

    mesh.wires().set_way_ms(WAY_MS);
    // Meanwhile nobody asks them for anything.
    mesh.until_all("all peers are far", |status| status.peers.iter().all(|peer| peer.this || peer.far)).await.unwrap();
    let mut files = BTreeMap::new();
    for site in &mesh.sites {
        let (client, name) = (site.mount().await.unwrap(), format!("from {}", site.name()));
        client.put(&name, name.as_bytes()).await.unwrap();
        files.insert(name.clone(), name.into_bytes());
        for (name, bytes) in &files {
            assert_eq!(client.get(name).await.unwrap(), bytes[..], "{name} at {}", site.name());
        }
    }
    for site in &mesh.sites {
        site.until_logged(&["more than half of mesh.election_min"], SOON).await.unwrap();
        let status = site.status().await.unwrap();
        assert!(status.has_majority && status.leader.is_some(), "{status:?}");
    }

    mesh.wires().set_way_ms(0);
    mesh.until_all("all peers are near", |status| status.peers.iter().all(|peer| !peer.far)).await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    assert_eq!(mesh.epoch().await.unwrap(), epoch);
}
