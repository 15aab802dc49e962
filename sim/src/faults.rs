//! Carries out a plan's faults, each at its time, and takes them back.

use crate::{
    plan::{Fault, What},
    world::{World, clouds::Trouble, network::Way},
};
use filer::actors::mesh::Decide;
use mesh::FilerId;
use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};
use storage::{
    cloudfs::{BY_OPERATOR, Copy, OpBody, read},
    ids::CloudId,
};
use tokio::time::{Instant, sleep, sleep_until};

/// Begins every fault of the plan at its time; the storm ends with it.
pub async fn storm(world: Rc<World>) {
    let start = Instant::now();
    let faults = world.plan.faults.clone();
    for (number, fault) in faults.into_iter().enumerate() {
        let world = world.clone();
        tokio::task::spawn_local(async move {
            sleep_until(start + Duration::from_millis(fault.at_ms)).await;
            if !world.healed.get() {
                world.trace.note("FAULT", format_args!("{:?} for {} ms", fault.what, fault.for_ms));
                carry_out(&world, number as u64, fault).await;
            }
        });
    }
    sleep_until(start + Duration::from_millis(world.plan.storm_ms)).await;
}

/// Mends everything.
pub fn heal(world: &World) {
    world.trace.note("FAULT", format_args!("all is mended"));
    world.healed.set(true);
    world.network.heal();
    world.clouds.iter().for_each(|cloud| cloud.heal());
    for id in world.ids() {
        world.at(id, |site| {
            site.pace.slow_ms.store(0, Relaxed);
            site.clock.set_off_ms(0);
            site.again_after_none();
        });
    }
}

async fn carry_out(world: &Rc<World>, number: u64, Fault { for_ms, what, .. }: Fault) {
    let wait = async || sleep(Duration::from_millis(for_ms)).await;
    let hit = |name| world.coverage.hit(name);
    match what {
        What::OneWayCut { from, to } => {
            hit("one-way cuts");
            cut(world, &[(FilerId(from), FilerId(to))], true);
            wait().await;
            cut(world, &[(FilerId(from), FilerId(to))], false);
        }
        What::Partition { side } => {
            hit("partitions");
            let side: Vec<FilerId> = side.into_iter().map(FilerId).collect();
            let across = across(world, &side);
            cut(world, &across, true);
            wait().await;
            cut(world, &across, false);
        }
        What::Flapping { filer, every_ms } => {
            hit("flapping links");
            let across = across(world, &[FilerId(filer)]);
            let end = Instant::now() + Duration::from_millis(for_ms);
            while Instant::now() < end && !world.healed.get() {
                cut(world, &across, true);
                sleep(Duration::from_millis(every_ms)).await;
                cut(world, &across, false);
                sleep(Duration::from_millis(every_ms)).await;
            }
        }
        What::SlowLink { filer, delay_ms, bytes_per_s } => {
            hit("slow links");
            let way = Way { delay_ms, bytes_per_s, ..Way::default() };
            set_ways(world, &across(world, &[FilerId(filer)]), way);
            wait().await;
            set_ways(world, &across(world, &[FilerId(filer)]), Way::default());
        }
        What::Lossy { lost_per_mille, twice_per_mille, jitter_ms } => {
            hit("lossy links");
            let way = Way { lost_per_mille, twice_per_mille, jitter_ms, ..Way::default() };
            let all: Vec<_> = world.ids().iter().flat_map(|id| across(world, &[*id])).collect();
            set_ways(world, &all, way);
            wait().await;
            set_ways(world, &all, Way::default());
        }
        What::Cloud { cloud, trouble } => {
            name_of(trouble).into_iter().for_each(hit);
            let cloud = &world.clouds[cloud];
            cloud.trouble(number, trouble);
            if world.clouds.iter().all(|cloud| cloud.is_out()) {
                hit("both clouds out");
            }
            wait().await;
            cloud.end_trouble(number);
        }
        What::BothOut => {
            hit("both clouds out");
            world.clouds.iter().for_each(|cloud| cloud.trouble(number, Trouble::Outage));
            wait().await;
            world.clouds.iter().for_each(|cloud| cloud.end_trouble(number));
        }
        What::LoseObject { cloud } => lose_object(world, cloud),
        What::Crash { filer, down_ms, at_effect, again_after } => {
            if at_effect.is_some() {
                hit("crashes at an effect");
            }
            world.crash(FilerId(filer), down_ms, at_effect, again_after);
        }
        What::SlowSync { filer, ms } => {
            hit("slow syncs");
            let pace = world.at(FilerId(filer), |site| site.pace.clone());
            pace.slow_ms.store(ms, Relaxed);
            wait().await;
            pace.slow_ms.store(0, Relaxed);
        }
        What::ClockOff { filer, ms } => {
            hit("clock jumps");
            let clock = world.at(FilerId(filer), |site| site.clock.clone());
            clock.set_off_ms(ms);
            wait().await;
            clock.set_off_ms(0);
        }
        What::Failover { filer } => operate(world, FilerId(filer), false).await,
        What::Failback { filer } => operate(world, FilerId(filer), true).await,
    }
}

fn name_of(trouble: Trouble) -> Option<&'static str> {
    match trouble {
        Trouble::Outage => Some("cloud outages"),
        Trouble::CutFrom { .. } => Some("cloud cut off from one site"),
        Trouble::Denied => Some("credentials revoked"),
        Trouble::Slow { .. } => Some("brown-outs"),
        // Counted with each call that meets them.
        _ => None,
    }
}

/// Every way between these filers and the others.
fn across(world: &World, side: &[FilerId]) -> Vec<(FilerId, FilerId)> {
    let (here, there): (Vec<_>, Vec<_>) = world.ids().into_iter().partition(|id| side.contains(id));
    here.iter().flat_map(|a| there.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect()
}

fn cut(world: &World, ways: &[(FilerId, FilerId)], cut: bool) {
    // What was mended with everything else is not mended twice.
    if cut || !world.healed.get() {
        ways.iter().for_each(|(from, to)| world.network.cut(*from, *to, cut));
    }
}

fn set_ways(world: &World, ways: &[(FilerId, FilerId)], way: Way) {
    if !world.healed.get() {
        ways.iter().for_each(|(from, to)| world.network.set_way(*from, *to, way));
    }
}

/// Loses an object that both clouds have.
fn lose_object(world: &World, cloud: usize) {
    let Ok(rows) = read::segments(&world.newest_tables(), None, 64) else {
        return;
    };
    let whole = rows.iter().find(|(id, row)| {
        row.live_bytes > 0
            && row.object.is_some_and(|object| object.copies == [Copy::Stored; 2])
            && !world.clouds.iter().any(|cloud| cloud.has_lost(&id.key()))
    });
    if whole.is_some_and(|(id, _)| world.clouds[cloud].lose(&id.key())) {
        world.coverage.hit("objects lost");
    }
}

/// An operator's wish.
pub async fn operate(world: &Rc<World>, at: FilerId, back: bool) {
    let Some(roles) = world.filer(at).and_then(|filer| filer.roles.get()) else {
        return;
    };
    let to: CloudId = if back { roles.preferred } else { roles.standby() };
    let body = OpBody::Activate { to, epoch: roles.epoch, by: BY_OPERATOR.into() };
    match world.call(at, async move |filer| filer.actors.mesh.send(Decide(body)).await).await {
        Ok(Ok(Ok(_))) if back => world.coverage.hit("operator failbacks"),
        Ok(Ok(Ok(_))) => {}
        _ => world.coverage.hit("operator refusals"),
    }
}
