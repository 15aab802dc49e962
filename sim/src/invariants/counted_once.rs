//! Failures are counted once per attempt, and a trip has its reason.
//!
//! Why it matters: a count that runs ahead moves a whole CloudFS for nothing, one that lags keeps it on a dead cloud; and a
//! filer that counts its own refusals keeps a cloud out for ever.

use mesh::FilerId;
use std::collections::BTreeMap;
use storage::{
    cloudfs::{CloudState, Roles},
    ids::CloudId,
};

/// How a trip for slow answers says so.
pub const SLOW: &str = "every answer took";

/// An attempt: its filer makes all its calls in one task, one right after the other, and it works when all of them do.
pub type AttemptId = tokio::task::Id;

/// Attempts at one object, of which several may be under way. It never counts less than the filer: in which order that hears
/// of attempts that end in one millisecond is not known here, nor when of one that was told something wrong on its way.
#[derive(Default)]
struct Row {
    /// Consecutive failures.
    in_a_row: u64,
    /// Of which so many ended in this millisecond.
    just_failed: (u64, u64),
    /// Attempts that were told something wrong, and may go on to find out what is.
    told_wrong: Vec<AttemptId>,
    last_well: Option<Well>,
}

/// A call ended well, and unless another one of its attempt begins at once, so did the attempt.
struct Well {
    attempt: AttemptId,
    at_ms: u64,
    /// Failures that the filer may hear of later.
    failures: u64,
}

impl Row {
    fn called(&mut self, now_ms: u64, attempt: AttemptId) {
        self.settle(now_ms);
        self.last_well.take_if(|well| well.attempt == attempt);
    }

    fn ended(&mut self, now_ms: u64, attempt: AttemptId, failed: bool, wrong: bool) {
        self.settle(now_ms);
        // That one has failed, whatever its last call says, and is counted again now that it may have ended: others may
        // have worked in between.
        if failed || wrong || self.told_wrong.contains(&attempt) {
            self.in_a_row += 1;
            self.just_failed.1 += 1;
            if let Some(well) = &mut self.last_well {
                well.failures += 1;
            }
        } else {
            self.last_well = Some(Well { attempt, at_ms: now_ms, failures: self.just_failed.1 });
        }
        if wrong {
            self.told_wrong.push(attempt);
        }
    }

    /// An attempt whose last call ended well some time ago has worked.
    fn settle(&mut self, now_ms: u64) {
        if let Some(well) = self.last_well.take_if(|well| well.at_ms < now_ms) {
            self.in_a_row = well.failures;
        }
        if self.just_failed.0 != now_ms {
            self.just_failed = (now_ms, 0);
        }
    }
}

#[derive(Default)]
struct Counts {
    failed: u64,
    /// Answers that were wrong, so that whoever checks them counts a failure.
    wrong: u64,
    by_object: BTreeMap<String, Row>,
    /// Most of them since the filer has judged the cloud anew, and the longest that a call took since.
    most_in_a_row: u64,
    slowest_ms: u64,
}

impl Counts {
    /// The mesh has judged the cloud, and what its filer counted before is about another cloud, as it were.
    fn begin_anew(&mut self, now_ms: u64) {
        (self.most_in_a_row, self.slowest_ms) = (0, 0);
        for row in self.by_object.values_mut() {
            // The filer may hear of the roles first, and of these then.
            let (at_ms, failures) = row.just_failed;
            row.in_a_row = if at_ms == now_ms { failures } else { 0 };
            self.most_in_a_row = self.most_in_a_row.max(row.in_a_row);
        }
    }
}

/// How a call ended.
pub struct Ended<'a> {
    pub key: &'a str,
    /// Whether it counts for the object's piece: a delete does not.
    pub of_piece: bool,
    pub attempt: AttemptId,
    pub failed: bool,
    /// Whether the answer was wrong, or of an object that the cloud has taken wrong.
    pub wrong: bool,
    pub took_ms: u64,
}

/// The check.
#[derive(Default)]
pub struct CountedOnce {
    by_filer: BTreeMap<(FilerId, CloudId), Counts>,
    /// The epoch that a filer's own tables had last, and the states of the clouds.
    judged: BTreeMap<FilerId, (u64, [CloudState; 2])>,
}

impl CountedOnce {
    /// A filer begins anew, and counts from 0.
    pub fn forget(&mut self, filer: FilerId) {
        self.by_filer.retain(|(known, _), _| *known != filer);
        self.judged.remove(&filer);
    }

    /// A filer's tables have these roles, of which it hears soon: no failure before counts any more where they judge a cloud anew.
    pub fn roles(&mut self, now_ms: u64, filer: FilerId, roles: &Roles) {
        let states = roles.clouds.each_ref().map(|cloud| cloud.state);
        let Some((epoch, before)) = self.judged.insert(filer, (roles.epoch.0, states)) else {
            return;
        };
        for cloud in CloudId::BOTH {
            let is_judged_anew = before[cloud.index()] != states[cloud.index()] || roles.epoch.0 > epoch + 1;
            if let Some(counts) = self.by_filer.get_mut(&(filer, cloud)).filter(|_| is_judged_anew) {
                counts.begin_anew(now_ms);
            }
        }
    }

    /// A filer calls a cloud. `of_piece`: how it ends counts for the object's piece.
    pub fn called(
        &mut self,
        now_ms: u64,
        filer: FilerId,
        cloud: CloudId,
        (key, of_piece): (&str, bool),
        attempt: AttemptId,
    ) {
        if of_piece && !key.starts_with("probes/") {
            let counts = self.by_filer.entry((filer, cloud)).or_default();
            counts.by_object.entry(key.into()).or_default().called(now_ms, attempt);
        }
    }

    /// A call ended, and its filer knows.
    /// Gives the most failures in a row of an object.
    pub fn ended(&mut self, now_ms: u64, filer: FilerId, cloud: CloudId, ended: &Ended<'_>) -> u64 {
        let Ended { key, of_piece, attempt, failed, wrong, took_ms } = *ended;
        if key.starts_with("probes/") {
            return 0;
        }
        let counts = self.by_filer.entry((filer, cloud)).or_default();
        counts.failed += u64::from(failed);
        counts.wrong += u64::from(wrong && !failed);
        counts.slowest_ms = counts.slowest_ms.max(took_ms);
        if of_piece {
            let row = counts.by_object.entry(key.into()).or_default();
            row.ended(now_ms, attempt, failed, wrong);
            counts.most_in_a_row = counts.most_in_a_row.max(row.in_a_row);
            return row.in_a_row;
        }
        0
    }

    /// A filer says how often its attempts failed.
    pub fn compare(&self, filer: FilerId, cloud: CloudId, failures_total: u64) -> Result<(), String> {
        let (failed, wrong) = match self.by_filer.get(&(filer, cloud)) {
            Some(counts) => (counts.failed, counts.wrong),
            None => (0, 0),
        };
        if (failed..=failed + wrong).contains(&failures_total) {
            return Ok(());
        }
        Err(format!(
            "filer {filer} has counted {failures_total} failures of cloud {cloud}, which failed {failed} times and gave {wrong} wrong answers"
        ))
    }

    /// A filer's trip of a cloud carried: for as many failures, or for answers that took at least so long.
    pub fn tripped(
        &self,
        filer: FilerId,
        cloud: CloudId,
        why: &str,
        (failures_to_trip, slow_ms): (u64, u64),
    ) -> Result<(), String> {
        let Some(counts) = self.by_filer.get(&(filer, cloud)) else {
            // It has begun anew since it asked.
            return Ok(());
        };
        let by_count = why.contains("consecutive failures") && counts.most_in_a_row >= failures_to_trip;
        let by_slowness = why.contains(SLOW) && counts.slowest_ms >= slow_ms;
        if by_count || by_slowness {
            return Ok(());
        }
        Err(format!(
            "filer {filer} tripped cloud {cloud} ({why}), and no object failed more than {} times in a row, and no answer took more than {} ms",
            counts.most_in_a_row, counts.slowest_ms
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::ids::Epoch;

    /// So many attempts, each of which is a task.
    async fn attempts<const N: usize>() -> [AttemptId; N] {
        let mut ids = Vec::new();
        for _ in 0..N {
            ids.push(tokio::spawn(async { tokio::task::id() }).await.expect("it cannot panic"));
        }
        ids.try_into().expect("as many")
    }

    /// Found by seed 1795747153001 of the mixed scene.
    #[tokio::test]
    async fn an_attempt_of_several_calls_works_when_all_of_them_do() {
        let (mut row, mut now_ms, ids) = (Row::default(), 0, attempts::<6>().await);
        let mut attempt = |row: &mut Row, id: usize, calls: &[(bool, bool)]| {
            now_ms += 10;
            for (failed, wrong) in calls {
                row.called(now_ms, ids[id]);
                now_ms += 1;
                row.ended(now_ms, ids[id], *failed, *wrong);
            }
            row.in_a_row
        };
        let (well, failed, wrong) = ((false, false), (true, false), (false, true));
        assert_eq!(attempt(&mut row, 0, &[failed]), 1);
        assert_eq!(attempt(&mut row, 1, &[well, failed]), 2);
        assert_eq!(attempt(&mut row, 2, &[wrong, well]), 4, "a wrong answer, and the whole object: once or twice");
        assert_eq!(attempt(&mut row, 3, &[failed]), 5);
        attempt(&mut row, 4, &[well, well]);
        assert_eq!(attempt(&mut row, 5, &[failed]), 1);
    }

    /// Found by seed 1 of the scene `failover`: two reads began at one time.
    #[tokio::test]
    async fn attempts_at_one_time_are_counted_each() {
        let (mut row, [a, b, c, d]) = (Row::default(), attempts().await);
        row.called(1, a);
        row.called(1, b);
        row.ended(5, a, true, false);
        row.ended(7, b, true, false);
        assert_eq!(row.in_a_row, 2);
        // In which order the filer hears of them is not known: it may count the failure.
        for failed in [[false, true], [true, false]] {
            row.called(8, c);
            row.called(8, d);
            row.ended(9, c, failed[0], false);
            row.ended(9, d, failed[1], false);
            row.settle(10);
            assert_eq!(row.in_a_row, 1);
        }
        row.ended(11, c, false, false);
        row.settle(12);
        assert_eq!(row.in_a_row, 0);
    }

    #[tokio::test]
    async fn one_that_works_does_not_hide_another_that_was_told_wrong_before_and_ends_behind_it() {
        let (mut row, [a, b]) = (Row::default(), attempts().await);
        row.called(1, a);
        row.called(2, b);
        row.ended(10, a, false, true);
        row.called(10, a);
        row.ended(15, b, false, false);
        row.ended(20, a, false, false);
        row.settle(21);
        assert_eq!(row.in_a_row, 1);
    }

    #[tokio::test]
    async fn a_trip_needs_failures_since_the_one_before() {
        let (mut check, filer, cloud) = (CountedOnce::default(), FilerId(1), CloudId::B);
        let [attempt] = attempts().await;
        let roles = |epoch, state| Roles::new(Epoch(epoch), CloudId::A, CloudId::A, [CloudState::Healthy, state], 0);
        let fail = |check: &mut CountedOnce, times: u64| {
            for _ in 0..times {
                let ended =
                    Ended { key: "segments/1", of_piece: true, attempt, failed: true, wrong: false, took_ms: 1 };
                check.called(1, filer, cloud, (ended.key, true), attempt);
                check.ended(1, filer, cloud, &ended);
            }
            check.tripped(filer, cloud, "3 consecutive failures", (3, 10_000))
        };
        check.roles(2, filer, &roles(1, CloudState::Healthy));
        fail(&mut check, 2).expect_err("too few");
        check.roles(2, filer, &roles(1, CloudState::Healthy));
        assert_eq!(fail(&mut check, 1), Ok(()), "the same roles judge nothing");
        check.roles(2, filer, &roles(2, CloudState::Failed));
        check.roles(2, filer, &roles(3, CloudState::Resyncing));
        fail(&mut check, 2).expect_err("those of before count no more");
        assert_eq!(fail(&mut check, 1), Ok(()));
        check.roles(2, filer, &roles(5, CloudState::Resyncing));
        fail(&mut check, 1).expect_err("it was judged by an epoch that the filer has not seen");
        let slow =
            |check: &CountedOnce, slow_ms| check.tripped(filer, cloud, "every answer took more than", (3, slow_ms));
        slow(&check, 10_000).expect_err("none did");
        assert_eq!(slow(&check, 1), Ok(()));
    }
}
