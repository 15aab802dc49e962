//! The standby fails first, the active one too, and both come back, in either order.

use std::collections::BTreeMap;
use storage::cloudfs::CloudState;
use tests::{
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    proof::{contents, site_reads_right},
};

/// Scenes 2 and 8, with everything between. The standby fails: the roles stay, and its misses are logged. Then the
/// active one fails, which trips, and is refused with the reason: the CloudFS never moves to a cloud that lacks
/// something. With both away, what is cached is served and what is written is kept and not called safe. Then both come
/// back, in either order, and have everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lacks_something_is_never_made_active_and_both_clouds_recover_in_either_order() {
    let mut clouds = TwoClouds::start().await.unwrap();
    let mesh = MeshOfFilers::start(Plan::new("both", clouds.places().unwrap())).await.unwrap();
    let (ams, nyc) = (&mesh.sites[0], &mesh.sites[1]);
    let (client, other) = (ams.mount().await.unwrap(), nyc.mount().await.unwrap());
    let mut files = BTreeMap::new();
    for round in 0..2 {
        let mut put = async |name: &str| {
            let (path, data) = (format!("{name}-{round}"), format!("{name} in round {round}").into_bytes());
            client.put(&path, &data).await.unwrap();
            files.insert(path, data);
        };
        put("before").await;
        mesh.until_all_well().await.unwrap();
        let epoch = mesh.epoch().await.unwrap();

        clouds.west.kill().unwrap();
        put("while the standby is away").await;
        mesh.until_all("the standby has failed, and nothing else has changed", |status| {
            status.epoch == epoch + 1 && status.active == "east" && status.clouds[1].state == CloudState::Failed
        })
        .await
        .unwrap();
        let status = ams.until("the miss is logged", SOON, |status| status.clouds[1].missed_puts > 0).await.unwrap();
        assert!(!status.absorbs_failure && status.why_not.is_some(), "{status:?}");
        assert!(status.clouds[1].oldest_miss_ms.is_some());

        clouds.east.kill().unwrap();
        put("while both are away").await;
        let refused = |status: &::filer::admin::Status| {
            status.decisions.first().is_some_and(|decision| !decision.carried && decision.text.contains("never moves"))
        };
        let status = ams.until("the trip of the active cloud is refused", SOON, refused).await.unwrap();
        assert_eq!((status.epoch, status.active.as_str()), (epoch + 1, "east"), "the roles stay");
        assert!(status.decisions[0].text.contains("west"), "the reason names the cloud: {:?}", status.decisions[0]);
        assert!(status.staging.segments > 0 && status.staging.oldest_unprotected_ms.is_some(), "{status:?}");
        let said = ams.command(&["cloud", "failover", "west"]).await.unwrap();
        assert_eq!(said.code, Some(3), "an operator is refused as well: {said:?}");
        assert!(said.err.contains("west"), "{said:?}");
        // What is here is served, at the site that wrote it and from there at the others.
        site_reads_right(ams, &contents(&files)).await.unwrap();
        let staged = format!("while both are away-{round}");
        assert_eq!(other.get(&staged).await.unwrap(), files[&staged][..]);

        let [first, second] =
            if round == 0 { [&mut clouds.west, &mut clouds.east] } else { [&mut clouds.east, &mut clouds.west] };
        first.start_again().await.unwrap();
        if round == 0 {
            // What it lacked is still on a filer's disk, so that it is whole again without the other one, and the trip
            // of the active cloud, which is asked for again, now carries.
            let moved = |status: &::filer::admin::Status| {
                status.active == "west" && status.clouds[0].state == CloudState::Failed && status.staging.segments == 0
            };
            mesh.until_all("the CloudFS has moved to the standby", moved).await.unwrap();
        } else {
            let drained = |status: &::filer::admin::Status| status.staging.segments == 0;
            ams.until("the active cloud has taken what was staged", SOON, drained).await.unwrap();
            assert_eq!(ams.status().await.unwrap().active, "east");
        }
        site_reads_right(nyc, &contents(&files)).await.unwrap();
        second.start_again().await.unwrap();
        mesh.prove(&contents(&files)).await.unwrap();
        assert!(mesh.sites[2].status().await.unwrap().absorbs_failure);
    }
}
