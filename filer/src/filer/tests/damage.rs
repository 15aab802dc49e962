//! A disk that damages what is staged: it costs the damaged pieces alone, and no cloud is blamed for it.

use super::{
    clouds::{Call, Trouble},
    files::noise,
    world::{World, settings},
};
use crate::{actors::health::Views, filer::Settings, fs::FsError};
use bytes::Bytes;
use std::time::Duration;
use storage::{cloudfs::Handle, disk::Disk, ids::SegmentId, staging};
use tokio::time::sleep;

const PIECE: usize = 8 << 10;

/// A file of five frames in one segment, which no cloud has yet.
async fn five_frames(world: &World) -> (Handle, Bytes) {
    world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, true));
    let data = noise(1, 5 * PIECE);
    let file = world.site(0).client().store("a", data.clone()).await;
    world.until("it is sealed", |world| world.clouds.iter().all(|cloud| !cloud.attempts(Call::Put).is_empty())).await;
    (file, data)
}

/// As [`five_frames`]; the second cloud takes the segment, and the first does not.
async fn five_frames_in_one_cloud(world: &World) -> (Handle, Bytes) {
    let staged = five_frames(world).await;
    world.clouds[1].refuse(Call::Put, false);
    world.until("one cloud has it", |world| !world.clouds[1].objects().is_empty()).await;
    staged
}

/// A byte in the third frame, with all of its sector.
const IN_THE_THIRD: usize = 2 * PIECE + PIECE / 2;

/// The file of the only staged segment.
async fn staged_file(world: &World) -> String {
    let files = world.site(0).disk.list().await.expect("memory does not fail");
    let staged: Vec<_> = files.iter().filter(|file| file.name.ends_with(".seg")).collect();
    assert_eq!(staged.len(), 1);
    staged[0].name.clone()
}

/// Flips a bit in the third frame of the only staged segment.
async fn flip(world: &World) -> SegmentId {
    let file = staged_file(world).await;
    assert!(world.site(0).disk.flip(&file, IN_THE_THIRD, 5));
    let name = file.trim_end_matches(".seg").replacen('-', "/", 1);
    SegmentId::from_key(&format!("segments/{name}")).expect("a segment's name")
}

fn on_disk_alone() -> Settings {
    Settings { staging: staging::Settings { memory_bytes_max: 0, ..settings().staging }, ..settings() }
}

/// The third frame is lost, at every site, and the others are not.
async fn costs_one_frame(world: &World, file: Handle, data: &Bytes) {
    for site in &world.sites {
        let client = site.client();
        for frame in 0..5 {
            let read = client.read(file, (frame * PIECE) as u64, PIECE as u32).await;
            match read {
                Ok(read) if frame != 2 => assert_eq!(read, data.slice(frame * PIECE..(frame + 1) * PIECE)),
                Err(FsError::Io(why)) if frame == 2 => assert!(why.contains("lost"), "{why}"),
                other => panic!("frame {frame} at {}: {other:?}", site.id),
            }
        }
    }
}

/// Nothing is lost, at any site.
async fn reads_whole(world: &World, file: Handle, data: &Bytes) {
    for site in &world.sites {
        assert_eq!(site.client().read_all(file).await, Ok(data.clone()), "at {}", site.id);
    }
}

/// Failures that the sites have counted, of both clouds.
async fn failures(world: &World) -> u64 {
    let mut failures = 0;
    for site in &world.sites {
        let views = site.filer().actors.health.send(Views).await.expect("it runs");
        failures += views.iter().map(|view| view.failures_total).sum::<u64>();
    }
    failures
}

async fn put_again(world: &World) {
    world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, false));
    world.settled().await;
    assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
    assert_eq!(world.clouds[0].objects().len(), 1);
}

#[test]
fn a_piece_damaged_over_a_restart_costs_itself_alone_and_blames_no_cloud() {
    over_a_restart(async |world| {
        flip(world).await;
    });
}

#[test]
fn a_sector_that_cannot_be_read_at_a_start_costs_its_piece_alone_and_blames_no_cloud() {
    over_a_restart(async |world| {
        assert!(world.site(0).disk.make_unreadable(&staged_file(world).await, IN_THE_THIRD));
    });
}

fn over_a_restart(damage: impl AsyncFnOnce(&World)) {
    World::run(2, async |world| {
        let (file, data) = five_frames(world).await;
        world.crash(0).await;
        damage(world).await;
        world.start(0).await;
        world
            .until("it is looked for", |world| world.clouds.iter().all(|cloud| !cloud.attempts(Call::Head).is_empty()))
            .await;
        sleep(Duration::from_secs(1)).await;
        costs_one_frame(world, file, &data).await;
        put_again(world).await;
        let before = failures(world).await;
        costs_one_frame(world, file, &data).await;
        assert_eq!(failures(world).await, before, "no cloud is blamed");
        assert_eq!(world.site(0).filer().staging.status().damaged_frames, 1);
        // What is written there again is whole.
        world.site(0).client().write(file, 2 * PIECE as u64, data.slice(2 * PIECE..3 * PIECE)).await;
        world.site(0).client().commit(file).await;
        assert_eq!(world.site(1).client().read_all(file).await, Ok(data));
    });
}

/// The next put to the first cloud happens so late that the segment is damaged by then.
async fn put_late(world: &World) {
    let tried = |world: &World| world.clouds[0].attempts(Call::Put).into_values().sum::<u64>();
    world.clouds[0].trouble(Call::Put, Some(Trouble::Late(15_000)));
    let before = tried(world);
    world.until("it is on its way", |world| tried(world) > before).await;
}

/// What is put for a damaged segment is not what was put for it before, and has its name.
#[test]
fn a_put_of_the_last_run_that_arrives_late_takes_no_place_and_saves_what_the_disk_lost() {
    World::run(2, async |world| {
        let (file, data) = five_frames(world).await;
        put_late(world).await;
        world.crash(0).await;
        flip(world).await;
        world.start(0).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
    });
}

#[test]
fn a_put_that_arrives_late_takes_no_place_of_what_was_mended_and_saves_what_the_disk_lost() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames(world).await;
        put_late(world).await;
        flip(world).await;
        world.until("it is mended", |world| world.site(0).filer().staging.status().damaged_frames == 1).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
    });
}

#[test]
fn what_a_wire_flips_of_a_put_that_has_arrived_does_not_let_it_be_written_over() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames(world).await;
        put_late(world).await;
        let segment = flip(world).await;
        world.clouds[0].damage_on_the_way(&segment.key(), 3);
        world.until("it is mended", |world| world.site(0).filer().staging.status().damaged_frames == 1).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
    });
}

/// Where the cloud that has given its receipt has lost the object, what is left here is all there is.
#[test]
fn a_receipt_of_a_cloud_that_has_the_segment_no_more_holds_up_no_mend() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        sleep(Duration::from_secs(1)).await;
        let segment = flip(world).await;
        world.clouds[1].lose(&segment.key());
        put_again(world).await;
        costs_one_frame(world, file, &data).await;
        assert!(world.clouds[1].attempts(Call::Get)[&segment.key()] >= u64::from(settings().steps.wrong_answers_max));
    });
}

#[test]
fn a_segment_damaged_here_that_a_cloud_has_is_restored_from_it() {
    World::run(2, async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        // The filer dies before it can say so.
        world.crash(0).await;
        flip(world).await;
        world.start(0).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
    });
}

/// What a wire flips is no word of what lies in the cloud.
#[test]
fn a_copy_that_is_damaged_on_its_way_is_asked_for_again_and_restores_the_segment() {
    World::run(2, async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        world.crash(0).await;
        let segment = flip(world).await;
        world.clouds[1].damage_on_the_way(&segment.key(), 3);
        world.start(0).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
        assert_eq!(world.clouds[1].attempts(Call::Get)[&segment.key()], 4, "three wrong answers and a right one");
    });
}

/// Where the cloud's copy is damaged as well, what is left here is all there is.
#[test]
fn a_copy_that_is_damaged_in_its_cloud_is_given_up_after_so_many_answers() {
    World::run(2, async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        world.crash(0).await;
        let segment = flip(world).await;
        world.clouds[1].damage(&segment.key());
        world.start(0).await;
        put_again(world).await;
        let asked = world.clouds[1].attempts(Call::Get)[&segment.key()];
        // At the start, and before what is left here is put.
        assert_eq!(asked, 2 * u64::from(settings().steps.wrong_answers_max));
        costs_one_frame(world, file, &data).await;
    });
}

#[test]
fn a_body_that_goes_bad_before_its_put_is_mended_and_blames_no_cloud() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames(world).await;
        flip(world).await;
        sleep(Duration::from_secs(5)).await;
        let before = failures(world).await;
        sleep(Duration::from_secs(5)).await;
        put_again(world).await;
        assert!(failures(world).await < before + 60, "refused puts alone are counted");
        costs_one_frame(world, file, &data).await;
        assert_eq!(world.site(0).filer().staging.status().damaged_frames, 1);
    });
}

#[test]
fn a_body_that_cannot_be_read_for_its_put_is_mended() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames(world).await;
        assert!(world.site(0).disk.make_unreadable(&staged_file(world).await, IN_THE_THIRD));
        sleep(Duration::from_secs(5)).await;
        put_again(world).await;
        costs_one_frame(world, file, &data).await;
        assert_eq!(world.site(0).filer().staging.status().damaged_frames, 1);
    });
}

#[test]
fn a_segment_that_cannot_be_read_here_and_that_a_cloud_has_is_restored_from_it() {
    World::run(2, async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        world.crash(0).await;
        let (disk, staged) = (world.site(0).disk.clone(), staged_file(world).await);
        // All of it.
        (0..=5 * PIECE).step_by(4096).for_each(|at| assert!(disk.make_unreadable(&staged, at)));
        world.start(0).await;
        put_again(world).await;
        reads_whole(world, file, &data).await;
    });
}

#[test]
fn a_body_that_goes_bad_between_two_puts_is_restored_from_the_first() {
    World::run_with(2, on_disk_alone(), async |world| {
        let (file, data) = five_frames_in_one_cloud(world).await;
        sleep(Duration::from_secs(1)).await;
        flip(world).await;
        put_again(world).await;
        assert_eq!(world.site(1).client().read_all(file).await, Ok(data));
        assert_eq!(world.site(0).filer().staging.status().damaged_frames, 0);
    });
}
