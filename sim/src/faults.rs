//! Carries out a plan's faults, each at its time, and takes them back.

mod disks;
mod members;
mod operators;

pub use operators::operate;

use crate::{
    clients::Shared,
    plan::{Fault, What},
    recording::Lane,
    world::{World, clouds::Trouble, network::Way},
};
use disks::Part;
use mesh::FilerId;
use std::{rc::Rc, time::Duration};
use storage::{
    cloudfs::{CloudState, Copy, read},
    ids::CloudId,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How soon a resync is seen for which a fault waits.
const RESYNC_SEEN: Duration = Duration::from_millis(50);

/// Whether a cloud is resynced.
fn is_resyncing(world: &World) -> bool {
    let roles = read::roles(&world.newest_tables()).ok().flatten();
    roles.is_some_and(|roles| roles.clouds.iter().any(|cloud| cloud.state == CloudState::Resyncing))
}

/// Begins every fault of the plan at its time; the storm ends with it.
pub async fn storm(world: Rc<World>, shared: Rc<Shared>) {
    let start = Instant::now();
    let faults = world.plan.faults.clone();
    for (number, fault) in faults.into_iter().enumerate() {
        let (world, shared) = (world.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            sleep_until(start + Duration::from_millis(fault.at_ms)).await;
            if let Some(later_ms) = fault.in_resync_ms {
                while !is_resyncing(&world) && !world.healed.get() {
                    sleep(RESYNC_SEEN).await;
                }
                sleep(Duration::from_millis(later_ms)).await;
            }
            if world.healed.get() {
                return left_out(&world, &fault.what, "the faults ended before its resync, or so much later");
            }
            if !is_possible(&world, &fault.what) {
                let why = match fault.what {
                    What::Add => "there are as many as there may be",
                    _ => "who it is about is gone, or too few would be left",
                };
                return left_out(&world, &fault.what, why);
            }
            world.trace.note("FAULT", format_args!("{:?} for {} ms", fault.what, fault.for_ms));
            record(&world, &fault);
            carry_out(&world, &shared, number as u64, fault).await;
        });
    }
    sleep_until(start + Duration::from_millis(world.plan.storm_ms)).await;
}

/// Mends everything.
pub fn heal(world: &World) {
    world.trace.note("FAULT", format_args!("the faults end, and what they left is mended"));
    world.healed.set(true);
    world.healed_ms.set(Some(world.trace.now_ms()));
    world.network.heal();
    world.clouds.iter().for_each(|cloud| cloud.heal());
    for id in world.ids() {
        world.at(id, |site| {
            site.heal();
        });
    }
    world.recording.mark(Lane::World, world.trace.now_ms(), "the faults end here".into());
}

/// Whether there is what a fault is about: its filer is not lost, a partition parts some from others.
fn is_possible(world: &World, what: &What) -> bool {
    let living = |filer: u64| world.ids().contains(&FilerId(filer));
    match what {
        What::Partition { side } => {
            let side: Vec<FilerId> = side.iter().copied().map(FilerId).collect();
            !across(world, &side).is_empty()
        }
        What::Lose { filer } => living(*filer) && world.may_lose(FilerId(*filer)),
        What::Add => members::may_add(world),
        what => what.filers().into_iter().all(living),
    }
}

/// Keeps a fault for people.
fn record(world: &World, Fault { for_ms, what, .. }: &Fault) {
    let lasts_ms = match what {
        What::BothOut { later_ms, back_earlier_ms, .. } => later_ms + for_ms + (*back_earlier_ms).max(0).unsigned_abs(),
        what if lasts(what) => *for_ms,
        _ => 0,
    };
    world.recording.fault(lane(what), world.trace.now_ms(), lasts_ms, told(what));
}

async fn carry_out(world: &Rc<World>, shared: &Rc<Shared>, number: u64, Fault { for_ms, what, .. }: Fault) {
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
            let ways = across(world, &[FilerId(filer)]);
            set_ways(world, &ways, number, Some(way));
            wait().await;
            set_ways(world, &ways, number, None);
        }
        What::Lossy { lost_per_mille, twice_per_mille, jitter_ms } => {
            hit("lossy links");
            let way = Way { lost_per_mille, twice_per_mille, jitter_ms, ..Way::default() };
            let all: Vec<_> = world.ids().iter().flat_map(|id| across(world, &[*id])).collect();
            set_ways(world, &all, number, Some(way));
            wait().await;
            set_ways(world, &all, number, None);
        }
        What::Cloud { cloud, trouble } => {
            name_of(trouble).into_iter().for_each(hit);
            let cloud = &world.clouds[cloud];
            cloud.trouble(number, trouble);
            if trouble == Trouble::Outage && world.clouds.iter().all(|cloud| cloud.is_out()) {
                hit("both clouds out");
            }
            wait().await;
            cloud.end_trouble(number);
        }
        What::BothOut { second, later_ms, back_earlier_ms } => {
            let [first, second] = [1 - second, second].map(|cloud| world.clouds[cloud].clone());
            first.trouble(number, Trouble::Outage);
            sleep(Duration::from_millis(later_ms)).await;
            if world.healed.get() {
                return;
            }
            second.trouble(number, Trouble::Outage);
            let (lane, lasts_ms) = (Lane::Cloud(second.id()), for_ms + (-back_earlier_ms).max(0).unsigned_abs());
            world.recording.fault(lane, world.trace.now_ms(), lasts_ms, Trouble::Outage.told());
            hit("both clouds out");
            wait().await;
            let ends = if back_earlier_ms > 0 { [&second, &first] } else { [&first, &second] };
            ends[0].end_trouble(number);
            if back_earlier_ms != 0 && !world.healed.get() {
                hit("one of both clouds back first");
            }
            sleep(Duration::from_millis(back_earlier_ms.unsigned_abs())).await;
            ends[1].end_trouble(number);
        }
        What::LoseObject { cloud } => lose_object(world, cloud),
        What::Crash { filer, down_ms, at_effect, again_after } => {
            world.crash(FilerId(filer), down_ms, at_effect, again_after);
        }
        What::CrashAtSync { filer, down_ms, syncs } => world.crash_at_sync(FilerId(filer), down_ms, syncs),
        What::CrashLeader { down_ms } => {
            let leader = world.filers().iter().find_map(|filer| filer.consensus.status().leader);
            if let Some(leader) = leader.filter(|leader| world.ids().contains(leader)) {
                hit("crashes of the leader");
                if is_resyncing(world) {
                    hit("crashes of the leader in a resync");
                }
                world.crash(leader, down_ms, None, None);
            }
        }
        What::Lose { filer } => members::lose(world, shared, FilerId(filer)).await,
        What::Add => members::add(world),
        What::SlowSync { filer, ms } => {
            hit("slow syncs");
            let pace = world.at(FilerId(filer), |site| site.pace.clone());
            pace.set_slow_ms(number, Some(ms));
            wait().await;
            pace.set_slow_ms(number, None);
        }
        What::FullDisk { filer, left_bytes } => {
            hit("full disks");
            world.at(FilerId(filer), |site| site.leave_room(number, Some(left_bytes)));
            wait().await;
            world.at(FilerId(filer), |site| site.leave_room(number, None));
        }
        What::FlipCache { filer, bits } => disks::flip(world, FilerId(filer), number, Part::Cache, bits).await,
        What::FlipStaging { filer, bits } => disks::flip(world, FilerId(filer), number, Part::Staging, bits).await,
        What::UnreadableCache { filer, sectors } => {
            disks::make_unreadable(world, FilerId(filer), number, Part::Cache, sectors).await;
        }
        What::UnreadableStaging { filer, sectors } => {
            disks::make_unreadable(world, FilerId(filer), number, Part::Staging, sectors).await;
        }
        What::ClockOff { filer, ms } => {
            hit("clock jumps");
            let clock = world.at(FilerId(filer), |site| site.clock.clone());
            clock.set_off_ms(number, Some(ms));
            wait().await;
            clock.set_off_ms(number, None);
        }
        What::Failover { filer } => operate(world, FilerId(filer), false).await,
        What::Failback { filer } => operate(world, FilerId(filer), true).await,
    }
}

/// Whether a fault has a length.
fn lasts(what: &What) -> bool {
    !matches!(
        what,
        What::LoseObject { .. }
            | What::Crash { .. }
            | What::CrashAtSync { .. }
            | What::CrashLeader { .. }
            | What::Lose { .. }
            | What::Add
            | What::FlipCache { .. }
            | What::FlipStaging { .. }
            | What::UnreadableCache { .. }
            | What::UnreadableStaging { .. }
            | What::Failover { .. }
            | What::Failback { .. }
    )
}

/// Where people look for a fault.
fn lane(what: &What) -> Lane {
    match what {
        What::Cloud { cloud, .. } | What::LoseObject { cloud } => Lane::Cloud(CloudId::BOTH[*cloud]),
        // The other one's outage begins later.
        What::BothOut { second, .. } => Lane::Cloud(CloudId::BOTH[1 - second]),
        What::Flapping { filer, .. }
        | What::SlowLink { filer, .. }
        | What::Crash { filer, .. }
        | What::CrashAtSync { filer, .. }
        | What::Lose { filer }
        | What::SlowSync { filer, .. }
        | What::FullDisk { filer, .. }
        | What::FlipCache { filer, .. }
        | What::FlipStaging { filer, .. }
        | What::UnreadableCache { filer, .. }
        | What::UnreadableStaging { filer, .. }
        | What::ClockOff { filer, .. } => Lane::Filer(FilerId(*filer)),
        _ => Lane::World,
    }
}

/// A fault in words for people.
fn told(what: &What) -> String {
    match what {
        What::OneWayCut { from, to } => format!("calls of filer {from} to filer {to} do not arrive"),
        What::Partition { side } => {
            let side: Vec<String> = side.iter().map(u64::to_string).collect();
            format!("partition: filers {} and the others do not reach each other", side.join(", "))
        }
        What::Flapping { every_ms, .. } => format!("link comes and goes every {every_ms} ms"),
        What::SlowLink { delay_ms, bytes_per_s, .. } => format!("slow link: {delay_ms} ms, {bytes_per_s} bytes/s"),
        What::Lossy { lost_per_mille, .. } => format!("links lose {lost_per_mille} packets in 1000"),
        What::Cloud { trouble, .. } => trouble.told(),
        What::BothOut { .. } => Trouble::Outage.told(),
        What::LoseObject { .. } => "an object is lost after its receipt".into(),
        What::Crash { at_effect: Some(_), .. } => "power is cut in the middle of an effect".into(),
        What::Crash { .. } => "power is cut".into(),
        What::CrashAtSync { .. } => "power is cut in the middle of a sync".into(),
        What::CrashLeader { .. } => "the leader's power is cut".into(),
        What::Lose { .. } => "lost for ever".into(),
        What::Add => "a filer is added".into(),
        What::SlowSync { ms, .. } => format!("syncs take up to {ms} ms"),
        What::FullDisk { left_bytes, .. } => format!("disk full: {left_bytes} bytes are left"),
        What::FlipCache { bits, .. } => format!("{bits} bits flip in the cache"),
        What::FlipStaging { bits, .. } => format!("{bits} bits flip in staging"),
        What::UnreadableCache { sectors, .. } => format!("{sectors} sectors of the cache cannot be read any more"),
        What::UnreadableStaging { sectors, .. } => format!("{sectors} sectors of staging cannot be read any more"),
        What::ClockOff { ms, .. } => clock_told(*ms),
        What::Failover { .. } => "an operator wants the other cloud active".into(),
        What::Failback { .. } => "an operator wants the preferred cloud active".into(),
    }
}

/// How far a clock is off, in words for people.
fn clock_told(ms: i64) -> String {
    const YEAR_MS: u64 = 365 * 86_400_000;
    let far = match ms.unsigned_abs() {
        ms if ms >= YEAR_MS => format!("{} years", ms / YEAR_MS),
        ms if ms >= 1_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        ms => format!("{ms} ms"),
    };
    format!("clock is {far} {}", if ms < 0 { "behind" } else { "ahead" })
}

/// A fault is not carried out.
fn left_out(world: &World, what: &What, why: &str) {
    world.coverage.hit("faults not carried out");
    world.trace.note("FAULT", format_args!("{what:?} is not: {why}"));
    let of = match what.filers().as_slice() {
        [filer] => format!(" of filer {filer}"),
        _ => String::new(),
    };
    let text = format!("not carried out{of}: {} ({why})", told(what));
    world.recording.mark(Lane::World, world.trace.now_ms(), text);
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

fn set_ways(world: &World, ways: &[(FilerId, FilerId)], number: u64, way: Option<Way>) {
    if !world.healed.get() {
        ways.iter().for_each(|(from, to)| world.network.set_way(*from, *to, number, way));
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
