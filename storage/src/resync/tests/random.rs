//! The machine under random inputs, right and wrong ones.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever it is told, the bounds hold, the deadline is never a busy loop, and a cloud that is back is drained.
    #[test]
    fn the_bounds_hold_and_the_log_is_drained(
        held_max in 1_usize..20,
        failing_max in 0_usize..20,
        in_flight_max in 1_usize..5,
        rows in 0_u64..60,
        turns in prop::collection::vec((0_u8..9, 1_u64..4, 0_u64..60, any::<bool>(), 0_u64..3_000), 0..120),
    ) {
        let settings =
            Settings { rows_held_max: held_max, rows_failing_max: failing_max, rows_in_flight_max: in_flight_max, ..Settings::default() };
        let mut world = World::new(settings, &FILERS, Some(FILERS[0]));
        world.live(&FILERS, Some(FILERS[0]));
        (1..=4).for_each(|filer| world.miss(filer, 0..rows));
        world.start(1);
        let mut epoch = 1;
        for (kind, filer, number, yes, wait_ms) in turns {
            let at = FilerId(filer);
            match kind {
                0 => {
                    epoch += 1;
                    world.roles(roles(epoch, if yes { Resyncing } else { Failed }));
                }
                1 => world.live(&FILERS, yes.then_some(at)),
                2 => drop(world.broken.insert(segment(filer, number))),
                3 => drop(world.broken.remove(&segment(filer, number))),
                4 => world.miss(filer, number..number + 2),
                5 => world.log.retain(|row, _| *row != segment(filer, number)),
                _ => world.run_for(wait_ms),
            }
        }
        world.broken.clear();
        world.live(&FILERS, Some(FILERS[2]));
        world.start(epoch + 1);
        world.run_for(300_000);
        prop_assert!(world.log.is_empty(), "left: {:?}", world.log);
    }

    /// Answers that nobody asked for do no harm to the bounds, nor to the deadline.
    #[test]
    fn answers_that_nobody_asked_for_do_no_harm(
        turns in prop::collection::vec((0_u8..6, 0_u64..40, any::<bool>(), 0_u64..1_000), 0..200),
    ) {
        let settings =
            Settings { rows_held_max: 10, rows_failing_max: 5, rows_in_flight_max: 3, ..Settings::default() };
        let random = SeededRandom::new(1);
        let mut resync = Resync::new(FILERS[0], settings);
        let (mut now_ms, mut epoch) = (0, 0);
        for (kind, number, yes, wait_ms) in turns {
            now_ms += wait_ms;
            epoch += 1;
            let (cloud, row) = (A, segment(1, number));
            let state = if yes { Resyncing } else { Failed };
            let outputs = resync.handle(now_ms, &random, match kind {
                0 => Input::Roles(roles(epoch, state)),
                1 => Input::Rows { cloud, rows: (0..number).map(|number| missed_put(1, number)).collect(), more: yes },
                2 => Input::Done { cloud, segment: row, bytes: 1 },
                3 => Input::Failed { cloud, segment: row },
                4 => Input::Mesh { live: FILERS[usize::from(yes)..].to_vec(), leader: None },
                _ => Input::Tick,
            });
            let drain = &resync.drains[0];
            prop_assert!(drain.counts().fresh <= 10 && drain.rows.len() <= 15);
            prop_assert!(drain.rows.values().filter(|row| row.in_flight).count() <= 3);
            prop_assert!(outputs.len() <= 4, "at most a look and what there is room for");
            prop_assert!(resync.deadline_ms().is_none_or(|deadline_ms| deadline_ms > now_ms));
        }
    }
}
