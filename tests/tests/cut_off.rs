//! A filer that is cut off from its peers: by halted processes, which answer nobody, and by cut wires.

use std::{collections::BTreeMap, time::Duration};
use storage::cloudfs::CloudState;
use tests::{
    cloud::{Effect, Fault, On},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    nfs3::{Nfs3, Options},
    proof::{contents, site_reads_right},
};

/// Scene 3. A filer without its peers finds that the active cloud fails: nothing moves. What it answers is right, or
/// clients wait. When the link is back, it catches up with what the others have done, and they with what it has staged.
#[tokio::test(flavor = "multi_thread")]
async fn a_filer_that_is_cut_off_moves_nothing_and_catches_up() {
    let clouds = TwoClouds::start().await.unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("cut", clouds.places().unwrap())).await.unwrap();
    let east = clouds.east.remote();
    let epoch = mesh.epoch().await.unwrap();
    // One that does not lead: what a leader was asked before the cut may yet be agreed to when the link is back.
    let leader = mesh.sites[0].status().await.unwrap().leader.expect("a mesh that is whole has a leader");
    let leads = mesh.sites.iter().position(|site| site.name() == leader).expect("the leader is one of them");
    let (me, others) = ((leads + 1) % 3, [leads, (leads + 2) % 3]);
    let client = mesh.sites[me].mount().await.unwrap();
    let mut files = BTreeMap::new();
    let mut put = async |name: &str| {
        client.put(name, name.as_bytes()).await.unwrap();
        files.insert(name.to_string(), name.as_bytes().to_vec());
    };
    put("before").await;
    mesh.until_all_well().await.unwrap();

    // Its next segment fails at the active cloud, for this filer alone.
    let prefix = format!("segments/{}/", mesh.sites[me].filer_id().unwrap());
    let effect = Effect::Status { status: 503, happened: false };
    let fault = east.add(&Fault::new(On::Put, effect).prefix(prefix)).await.unwrap();
    put("acknowledged before the link is cut").await;
    for at in others {
        mesh.sites[at].process().unwrap().pause().unwrap();
    }
    let tripping = |status: &::filer::admin::Status| !status.has_majority && status.clouds[0].failures_now >= 160;
    let status = mesh.sites[me].until("it would trip the cloud", SOON, tripping).await.unwrap();
    assert_eq!((status.epoch, status.active.as_str()), (epoch, "east"), "without a majority nothing moves");
    assert!(!status.absorbs_failure && status.staging.segments > 0, "{status:?}");

    // Clients wait: a read must not be older than what others may have written.
    let impatient = Options { call_within: Duration::from_secs(2), ..Options::new(mesh.sites[me].nfs()) };
    let told = match Nfs3::mount(impatient).await {
        Ok(client) => client.get("before").await.map(drop).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("no result within"), "{told}");

    // The cloud is well again and the link is back: there is nothing to trip for. What it asked for meanwhile it has
    // given up by then, as nobody answered.
    mesh.sites[me].until_logged(&["a wish about the cloud was not granted"], SOON).await.unwrap();
    east.remove(fault).await.unwrap();
    let put_now = |status: &::filer::admin::Status| status.clouds[0].failures_now == 0;
    mesh.sites[me].until("its segment is in the active cloud", SOON, put_now).await.unwrap();
    for at in others {
        mesh.sites[at].process().unwrap().resume().unwrap();
    }
    mesh.until_whole().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    assert_eq!(mesh.epoch().await.unwrap(), epoch);

    // The other way round: the majority moves without it, and it follows.
    mesh.sites[me].process().unwrap().pause().unwrap();
    let effect = Effect::Status { status: 503, happened: false };
    let fault = east.add(&Fault::new(On::Any, effect)).await.unwrap();
    let other = mesh.sites[others[0]].mount().await.unwrap();
    for name in ["written without it", "before"] {
        other.put(name, format!("{name}, elsewhere").as_bytes()).await.unwrap();
        files.insert(name.into(), format!("{name}, elsewhere").into_bytes());
    }
    let moved = |status: &::filer::admin::Status| status.active == "west";
    mesh.sites[others[0]].until("the others have moved", SOON, moved).await.unwrap();
    mesh.sites[me].process().unwrap().resume().unwrap();
    mesh.sites[me].until("it has followed", SOON, moved).await.unwrap();
    assert_eq!(client.get("before").await.unwrap(), files["before"][..], "it serves what the others wrote");
    east.remove(fault).await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}

/// A filer is cut off while it leads, and its clients and clouds still reach it. The others choose another leader, and
/// the CloudFS fails over with them. The one that is alone serves what it has, from the cloud that is left too, moves
/// nothing, and acknowledges nothing; when the wires are mended it catches up, and what its client wrote is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_minority_serves_what_it_has_while_the_majority_fails_over_and_catches_up() {
    let clouds = TwoClouds::start().await.unwrap();
    let plan = Plan::new("minority", clouds.places().unwrap()).wired().set("consistency.without_majority=read-only");
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let east = clouds.east.remote();
    let leader = mesh.sites[0].status().await.unwrap().leader.expect("a mesh that is whole has a leader");
    let leads = mesh.sites.iter().position(|site| site.name() == leader).expect("the leader is one of them");
    let (alone, others) = (&mesh.sites[leads], [&mesh.sites[(leads + 1) % 3], &mesh.sites[(leads + 2) % 3]]);
    let (client, other) = (alone.mount().await.unwrap(), others[0].mount().await.unwrap());
    let mut files = BTreeMap::new();
    for (writer, name) in [(&client, "written here"), (&other, "written elsewhere"), (&other, "to be changed")] {
        writer.put(name, name.as_bytes()).await.unwrap();
        files.insert(name.to_string(), name.as_bytes().to_vec());
    }
    mesh.until_all_well().await.unwrap();
    let epoch = mesh.epoch().await.unwrap();

    mesh.wires().cut_off(alone.mesh());
    alone.until("it is alone", SOON, |status| !status.has_majority).await.unwrap();
    let leads_on = |status: &::filer::admin::Status| {
        status.has_majority && status.leader.as_ref().is_some_and(|name| *name != leader)
    };
    for site in others {
        site.until("another filer leads", SOON, leads_on).await.unwrap();
    }
    // The active cloud fails, for everybody.
    east.add(&Fault::new(On::Any, Effect::Status { status: 503, happened: false })).await.unwrap();
    // Read-only: what it has, and what the standby has, since the active one does not answer.
    for name in ["written here", "written elsewhere"] {
        assert_eq!(client.get(name).await.unwrap(), files[name][..], "{name} is served");
    }
    // A change waits: it is neither refused for good nor acknowledged.
    let (file, data) = ("written while it was alone".to_string(), b"acknowledged when it is not alone".to_vec());
    let waiting = tokio::spawn({
        let (client, file, data) = (client.clone(), file.clone(), data.clone());
        async move { client.put(&file, &data).await }
    });
    for name in ["to be changed", "new"] {
        let data = format!("{name}, by the majority").into_bytes();
        other.put(name, &data).await.unwrap();
        files.insert(name.into(), data);
    }
    let moved = |status: &::filer::admin::Status| {
        status.active == "west" && status.clouds[0].state == CloudState::Failed && status.staging.segments == 0
    };
    for site in others {
        site.until("the majority has failed over", SOON, moved).await.unwrap();
    }
    let status = alone.status().await.unwrap();
    assert!(!status.has_majority && !status.absorbs_failure, "{status:?}");
    assert_eq!((status.epoch, status.active.as_str()), (epoch, "east"), "alone, it moves nothing");
    assert!(!waiting.is_finished(), "a change was acknowledged, or refused for good, without a majority");
    assert_eq!(client.get("written here").await.unwrap(), files["written here"][..], "it still serves");

    mesh.wires().mend();
    mesh.until_whole().await.unwrap();
    alone.until("it has followed", SOON, moved).await.unwrap();
    waiting.await.unwrap().unwrap();
    files.insert(file, data);
    for site in &mesh.sites {
        site_reads_right(site, &contents(&files)).await.unwrap();
    }
    east.heal().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}
