//! One file against a vector of bytes: any order of writes, truncations, commits and reads at the site that writes, and
//! what the other site reads after a close.

use super::world::{World, settings};
use crate::{filer::Settings, fs::Stable};
use proptest::prelude::*;
use std::time::Duration;
use storage::staging;

#[derive(Clone, Debug)]
enum Action {
    Write {
        at: usize,
        len: usize,
        stable: bool,
    },
    Truncate {
        bytes: usize,
    },
    Commit,
    /// Lets the open segment grow old.
    Wait {
        ms: u64,
    },
    Read {
        at: usize,
        len: usize,
    },
    /// A close here, and a read elsewhere.
    ReadThere,
    /// A close here; from now on the other site writes.
    Swap,
    /// A crash of the site that writes, after a commit.
    Restart,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0usize..3000, 1usize..1500, any::<bool>())
            .prop_map(|(at, len, stable)| Action::Write { at, len, stable: stable && len % 5 == 0 }),
        3 => (0usize..4000).prop_map(|bytes| Action::Truncate { bytes }),
        2 => Just(Action::Commit),
        2 => (1u64..2500).prop_map(|ms| Action::Wait { ms }),
        5 => (0usize..4500, 1usize..4000).prop_map(|(at, len)| Action::Read { at, len }),
        2 => Just(Action::ReadThere),
        1 => Just(Action::Swap),
        1 => Just(Action::Restart),
    ];
    prop::collection::vec(action, 1..40)
}

async fn check(world: &mut World, actions: Vec<Action>) {
    let (mut here, mut model, mut written) = (0, Vec::new(), 0u8);
    let file = world.site(0).client().create("a").await;
    for action in actions {
        let client = world.site(here).client();
        match action {
            Action::Write { at, len, stable } => {
                written = written.wrapping_add(1);
                let data: Vec<u8> = (0..len).map(|place| written.wrapping_mul(37) ^ place as u8).collect();
                if model.len() < at + len {
                    model.resize(at + len, 0);
                }
                model[at..at + len].copy_from_slice(&data);
                let stable = if stable { Stable::FileSync } else { Stable::Unstable };
                client.write_as(file, at as u64, data.into(), stable).await.expect("a write");
            }
            Action::Truncate { bytes } => {
                model.resize(bytes, 0);
                client.truncate(file, bytes as u64).await.expect("a truncation");
            }
            Action::Commit => client.commit(file).await,
            Action::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Action::Read { at, len } => {
                let expected = &model[at.min(model.len())..(at + len).min(model.len())];
                assert_eq!(&client.read(file, at as u64, len as u32).await.expect("a read")[..], expected);
            }
            Action::ReadThere => {
                client.commit(file).await;
                let there = world.site(1 - here).client().read_all(file).await;
                assert_eq!(&there.expect("a read")[..], &model[..]);
            }
            Action::Swap => {
                client.commit(file).await;
                here = 1 - here;
                // The open of a client at the other site.
                world.site(here).client().getattr(file).await.expect("it is there");
            }
            Action::Restart => {
                client.commit(file).await;
                world.restart(here).await;
                world
                    .until("a majority is back", |world| {
                        world.sites.iter().all(|site| site.filer().consensus.status().leader.is_some())
                    })
                    .await;
            }
        }
        let bytes = world.site(here).client().getattr(file).await.expect("it is there").bytes;
        assert_eq!(bytes, model.len() as u64);
    }
    assert_eq!(&world.site(here).client().read_all(file).await.expect("a read")[..], &model[..]);
    world.site(here).client().commit(file).await;
    for site in &world.sites {
        assert_eq!(&site.client().read_all(file).await.expect("a read")[..], &model[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_what_was_written(actions in actions()) {
        // Small frames and segments, so that writes lie over parts of earlier ones, in the same and in others.
        let staging = staging::Settings { frame_bytes_max: 700, ..settings().staging.with_segments(4000) };
        World::run_with(2, Settings { staging, ..settings() }, async |world| check(world, actions).await);
    }
}
