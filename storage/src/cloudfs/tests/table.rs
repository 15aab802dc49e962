//! Every state of a cloud, in every role, has an answer to every operation: here they all are.

use super::*;
use crate::cloudfs::{applying::Applying, read::StateRead};

/// A situation of the cloud that the operations are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Situation {
    active: bool,
    state: CloudState,
    other: CloudState,
}

const fn situation(active: bool, state: CloudState, other: CloudState) -> Situation {
    Situation { active, state, other }
}

use CloudState::{Failed, Healthy, Resyncing};

/// The columns. In the first three the cloud is active, in the next three standby. The last two can never be reached,
/// and are answered all the same.
const COLUMNS: [Situation; 8] = [
    situation(true, Healthy, Healthy),
    situation(true, Healthy, Failed),
    situation(true, Healthy, Resyncing),
    situation(false, Healthy, Healthy),
    situation(false, Failed, Healthy),
    situation(false, Resyncing, Healthy),
    situation(true, Failed, Healthy),
    situation(true, Resyncing, Healthy),
];

const DONE: [&str; 8] = ["done"; 8];

/// What happened to the cloud, in a word:
/// `swap` it failed and the other is active; `failed`, `resyncing`, `healthy` its new state; `active` its new role;
/// `reached`, `left` by the proposer; `missed` a row more in its log, `repaired` a row less; `done` none of these;
/// `refused`; `recorded` refused and kept on record; `receipt` its receipt is required; `stale` epoch.
#[rustfmt::skip]
const TABLE: &[(&str, [&str; 8])] = &[
    //                      active,    active,     active,     standby,   standby,     standby,     never:     never:
    //                      healthy    other       other       healthy    failed       resyncing    active     active
    //                                 failed      resyncing                                        failed     resyncing
    ("trip",               ["swap",    "recorded", "recorded", "failed",  "refused",   "failed",    "refused", "swap"]),
    ("trip, majority for", ["swap",    "recorded", "recorded", "failed",  "refused",   "failed",    "refused", "swap"]),
    ("trip, no majority",  ["recorded","recorded", "recorded", "recorded","refused",   "recorded",  "refused", "recorded"]),
    ("trip, old epoch",    ["stale",   "stale",    "stale",    "stale",   "stale",     "stale",     "stale",   "stale"]),
    ("reached",            ["refused", "refused",  "refused",  "refused", "reached",   "refused",   "reached", "refused"]),
    ("not reached",        ["refused", "refused",  "refused",  "refused", "left",      "refused",   "left",    "refused"]),
    ("start, reached",     ["refused", "refused",  "refused",  "refused", "resyncing", "refused",   "resyncing","refused"]),
    ("start, unreached",   ["refused", "refused",  "refused",  "refused", "refused",   "refused",   "refused", "refused"]),
    ("finish, all there",  ["refused", "refused",  "refused",  "refused", "refused",   "healthy",   "refused", "healthy"]),
    ("finish, missing",    ["refused", "refused",  "refused",  "refused", "refused",   "refused",   "refused", "refused"]),
    ("activate",           ["refused", "refused",  "refused",  "active",  "refused",   "refused",   "refused", "refused"]),
    ("activate, missing",  ["refused", "refused",  "refused",  "refused", "refused",   "refused",   "refused", "refused"]),
    ("stored, receipt",    ["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    ("stored, none",       ["receipt", "receipt",  "receipt",  "receipt", "missed",    "missed",    "missed",  "missed"]),
    ("deleted, receipt",   ["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    ("deleted, none",      ["receipt", "receipt",  "receipt",  "receipt", "missed",    "missed",    "missed",  "missed"]),
    ("repaired, no row",   ["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    ("repaired, its row",  ["repaired","repaired", "repaired", "repaired","repaired",  "repaired",  "repaired","repaired"]),
    ("repaired, other row",["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    ("kept, no row",       ["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    ("kept, its row",      ["repaired","repaired", "repaired", "repaired","repaired",  "repaired",  "repaired","repaired"]),
    ("kept, other row",    ["done",    "done",     "done",     "done",    "done",      "done",      "done",    "done"]),
    // What has nothing to do with the clouds.
    ("create",              DONE),
    ("make",                DONE),
    ("set_attr",            DONE),
    ("write",               DONE),
    ("link",                DONE),
    ("remove",              DONE),
    ("remove_dir",          DONE),
    ("rename",              DONE),
    ("reap",                DONE),
    ("abandon",             DONE),
    ("clock",               DONE),
    ("keep_secret",         DONE),
    ("leave",               DONE),
    ("stay",                DONE),
    ("bury, a member's",   ["refused", "refused",  "refused",  "refused", "refused",   "refused",   "refused", "refused"]),
    ("format",             ["refused", "refused",  "refused",  "refused", "refused",   "refused",   "refused", "refused"]),
];

/// The file, and the directory, that are there.
const FILE: Handle = Handle { ino: 2, generation: 1 };
const CLOUD: CloudId = CloudId::B;
const EPOCH: Epoch = Epoch(6);

/// A CloudFS in that situation, with segment 1 in staging, segment 2 dead, segment 4 in staging and without use, and,
/// where `missing`, segment 3 missed, or the delete of segment 9.
fn in_situation(column: Situation, missing: Option<MissKind>, reached: bool) -> Bench {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    assert_eq!(file, FILE);
    bench.dir(ROOT, "d");
    bench.ok(write(file, &[extent(0, 10, seg(4)), extent(0, 10, seg(1)), extent(10, 10, seg(3))]));
    bench.ok(stored(seg(2), [true, true], Epoch(1)));
    bench.ok(stored(seg(3), [true, true], Epoch(1)));
    let mut roles = bench.roles();
    roles.epoch = EPOCH;
    roles.active = if column.active { CLOUD } else { CLOUD.other() };
    roles.clouds[CLOUD.index()].state = column.state;
    roles.clouds[CLOUD.other().index()].state = column.other;
    if reached {
        roles.clouds[CLOUD.index()].reached_by = vec![AMS];
    }
    let mut txn = Txn::new(&bench.kv, STATE);
    let counters = read::counters(&bench.kv).expect("memory").expect("formatted");
    let (limits, now_ns) = (Limits::default(), bench.wall_ns);
    let mut state = Applying { txn: &mut txn, filer: AMS, now_ns, limits, counters };
    if let Some(kind) = missing {
        let number = if kind == MissKind::Put { 3 } else { 9 };
        assert!(state.put_miss(&mut roles, CLOUD, seg(number), kind).is_ok());
    }
    state.put_roles(&roles);
    block_on(bench.kv.write(txn.into_batch(), Durability::Buffered)).expect("memory");
    bench
}

/// A row's operation, what is missed before it, and whether the cloud is reached.
fn operation(row: &str) -> (OpBody, Option<MissKind>, bool) {
    let (cloud, epoch) = (CLOUD, EPOCH);
    let cast = |failing: bool| {
        let seen = CloudView { reachable: Some(!failing), failures: 0, slow: false };
        let views = [CloudView { reachable: None, failures: 0, slow: false }, seen];
        vec![Ballot { filer: AMS, epoch, views }, Ballot { filer: NYC, epoch, views }]
    };
    let majority = |failing| OpBody::Trip {
        cloud,
        epoch,
        why: "slow".into(),
        ballots: cast(failing),
        voters: 2,
        policy: TripPolicy::Majority,
    };
    let repaired = |kind| OpBody::Repaired { cloud, segment: seg(3), kind, epoch };
    let activate = OpBody::Activate { to: cloud, epoch, by: "operator".into() };
    let (own, none) = ([true, true], [true, false]);
    let kept = |number| OpBody::Kept { cloud, segment: seg(number), epoch };
    let put = Some(MissKind::Put);
    match row {
        "trip" => (trip(cloud, epoch), None, false),
        "trip, majority for" => (majority(true), None, false),
        "trip, no majority" => (majority(false), None, false),
        "trip, old epoch" => (trip(cloud, Epoch(5)), None, false),
        "reached" => (OpBody::Reached { cloud, epoch, reached: true }, None, false),
        "not reached" => (OpBody::Reached { cloud, epoch, reached: false }, None, true),
        "start, reached" => (OpBody::StartResync { cloud, epoch, live: vec![AMS] }, None, true),
        "start, unreached" => (OpBody::StartResync { cloud, epoch, live: vec![AMS] }, None, false),
        "finish, all there" => (OpBody::FinishResync { cloud, epoch }, None, false),
        "finish, missing" => (OpBody::FinishResync { cloud, epoch }, put, false),
        "activate" => (activate, None, false),
        "activate, missing" => (activate, put, false),
        "stored, receipt" => (stored(seg(1), own, epoch), None, false),
        "stored, none" => (stored(seg(1), none, epoch), None, false),
        "deleted, receipt" => (OpBody::Deleted { segment: seg(2), done: own, epoch }, None, false),
        "deleted, none" => (OpBody::Deleted { segment: seg(2), done: none, epoch }, None, false),
        "repaired, no row" => (repaired(MissKind::Put), None, false),
        "repaired, its row" => (repaired(MissKind::Put), put, false),
        "repaired, other row" => (repaired(MissKind::Delete), put, false),
        "kept, no row" => (kept(9), None, false),
        "kept, its row" => (kept(9), Some(MissKind::Delete), false),
        "kept, other row" => (kept(3), put, false),
        "create" => (create(ROOT, "new"), None, false),
        "make" => (mkdir(ROOT, "new"), None, false),
        "set_attr" => (resize(FILE, 5), None, false),
        "write" => (write(FILE, &[extent(0, 10, seg(5))]), None, false),
        "link" => (link(FILE, ROOT, "new"), None, false),
        "remove" => (remove(ROOT, "f"), None, false),
        "remove_dir" => (rmdir(ROOT, "d"), None, false),
        "rename" => (rename(ROOT, "f", ROOT, "new"), None, false),
        "reap" => (OpBody::Reap { ino: FILE.ino }, None, false),
        "abandon" => (OpBody::Abandon { segment: seg(4) }, None, false),
        "bury, a member's" => (OpBody::Bury { segment: seg(4) }, None, false),
        "clock" => (OpBody::Clock { since_ms: 60_000 }, None, false),
        "keep_secret" => {
            (OpBody::KeepSecret { secret: DoorSecret::draw(&mesh::clock::SeededRandom::new(1)) }, None, false)
        }
        "leave" => (OpBody::Leave { leaver: AMS }, None, false),
        "stay" => (OpBody::Stay { leaver: AMS, alone_with: None }, None, false),
        "format" => (OpBody::Format { cloudfs: 7, preferred: cloud }, None, false),
        other => panic!("no operation {other}"),
    }
}

/// Another operation has another number; without a gap.
fn kind(body: &OpBody) -> usize {
    match body {
        OpBody::Create { .. } => 0,
        OpBody::Make { .. } => 1,
        OpBody::SetAttr { .. } => 2,
        OpBody::Write { .. } => 3,
        OpBody::Link { .. } => 4,
        OpBody::Remove { .. } => 5,
        OpBody::RemoveDir { .. } => 6,
        OpBody::Rename { .. } => 7,
        OpBody::Reap { .. } => 8,
        OpBody::Stored { .. } => 9,
        OpBody::Abandon { .. } => 10,
        OpBody::Deleted { .. } => 11,
        OpBody::Format { .. } => 12,
        OpBody::Clock { .. } => 13,
        OpBody::Trip { .. } => 14,
        OpBody::Reached { .. } => 15,
        OpBody::StartResync { .. } => 16,
        OpBody::Repaired { .. } => 17,
        OpBody::FinishResync { .. } => 18,
        OpBody::Activate { .. } => 19,
        OpBody::KeepSecret { .. } => 20,
        OpBody::Bury { .. } => 21,
        OpBody::Kept { .. } => 22,
        OpBody::Leave { .. } => 23,
        OpBody::Stay { .. } => 24,
    }
}
const KINDS: usize = 25;

/// What an operation did, as a word of the table.
fn outcome(bench: &mut Bench, body: OpBody) -> &'static str {
    let (before, decisions) = (bench.roles(), bench.decisions().len());
    let answer = bench.apply_unchecked(body);
    let (after, recorded) = (bench.roles(), bench.decisions().len() - decisions);
    let (old, new) = (before.cloud(CLOUD), after.cloud(CLOUD));
    let decided = before.active != after.active
        || before.clouds.each_ref().map(|c| c.state) != after.clouds.each_ref().map(|c| c.state);
    let refused = matches!(answer, Err(OpError::Refused(_)));
    assert_eq!(recorded == 1, decided || (refused && recorded == 1), "a decision for every change");
    assert_eq!(after.epoch.0, before.epoch.0 + u64::from(decided), "an epoch for every change");
    assert!(!decided || after.clouds.iter().all(|status| status.reached_by.is_empty()));
    assert_eq!(after.cloud(CLOUD.other()).state, before.cloud(CLOUD.other()).state, "the other's state never changes");
    let missed = |status: &CloudStatus| status.missed_puts + status.missed_deletes;
    match answer {
        Err(OpError::Refused(why)) => {
            assert!(!why.is_empty());
            if recorded == 1 { "recorded" } else { "refused" }
        }
        Err(OpError::StaleEpoch { .. }) => "stale",
        Err(OpError::ReceiptMissing { .. }) => "receipt",
        Err(OpError::Format(_)) => "refused",
        Err(other) => panic!("{other}"),
        Ok(Answer::Roles(roles)) => {
            assert_eq!(roles, after);
            match (before.active == CLOUD, after.active == CLOUD) {
                (true, false) => {
                    assert_eq!(new.state, Failed);
                    "swap"
                }
                (false, true) => "active",
                _ if old.state != new.state => match new.state {
                    Healthy => "healthy",
                    Failed => "failed",
                    Resyncing => "resyncing",
                },
                _ if new.reached_by.len() > old.reached_by.len() => "reached",
                _ if new.reached_by.len() < old.reached_by.len() => "left",
                _ => "done",
            }
        }
        Ok(Answer::Done) if missed(new) > missed(old) => "missed",
        Ok(Answer::Done) if missed(new) < missed(old) => "repaired",
        Ok(Answer::Done | Answer::Node { .. } | Answer::Dir { .. } | Answer::Dirs { .. }) => {
            assert_eq!(before, after, "the clouds are as they were");
            "done"
        }
    }
}

#[test]
fn every_state_and_role_has_an_answer_to_every_operation() {
    let mut wrong = Vec::new();
    for (row, expected) in TABLE {
        for (column, expected) in COLUMNS.into_iter().zip(expected) {
            let (body, missing, reached) = operation(row);
            let mut bench = in_situation(column, missing, reached);
            let got = outcome(&mut bench, body);
            if got != *expected {
                wrong.push(format!("{row}, {column:?}: {got}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_role_and_state_is_a_column_and_every_operation_is_a_row() {
    for active in [true, false] {
        for state in [Healthy, Failed, Resyncing] {
            assert!(COLUMNS.iter().any(|column| column.active == active && column.state == state));
        }
    }
    let rows: std::collections::BTreeSet<usize> = TABLE.iter().map(|(row, _)| kind(&operation(row).0)).collect();
    assert_eq!(rows, (0..KINDS).collect());
}

#[test]
fn no_combination_of_states_moves_to_a_cloud_that_is_not_healthy_or_has_no_answer() {
    let states = [Healthy, Failed, Resyncing];
    for active in [true, false] {
        for (state, other) in states.into_iter().flat_map(|state| states.map(|other| (state, other))) {
            for (row, _) in TABLE {
                let (body, missing, reached) = operation(row);
                let mut bench = in_situation(situation(active, state, other), missing, reached);
                let before = bench.roles().active;
                let word = outcome(&mut bench, body);
                let roles = bench.roles();
                let moved_to = roles.cloud(roles.active);
                let is_well = moved_to.state == Healthy && moved_to.missed_puts + moved_to.missed_deletes == 0;
                assert!(roles.active == before || is_well, "{row}, {active} {state:?} {other:?}: {word}");
            }
        }
    }
}

/// Sets the epoch of an operation, where it has one.
fn has_epoch(body: &mut OpBody, set: Epoch) -> bool {
    match body {
        OpBody::Trip { epoch, .. }
        | OpBody::Reached { epoch, .. }
        | OpBody::StartResync { epoch, .. }
        | OpBody::Repaired { epoch, .. }
        | OpBody::Kept { epoch, .. }
        | OpBody::FinishResync { epoch, .. }
        | OpBody::Activate { epoch, .. }
        | OpBody::Stored { epoch, .. }
        | OpBody::Deleted { epoch, .. } => {
            *epoch = set;
            true
        }
        _ => false,
    }
}

#[test]
fn every_epoch_of_the_past_is_stale_for_every_operation_that_carries_one() {
    let mut kinds = std::collections::BTreeSet::new();
    for (row, _) in TABLE {
        let (mut body, ..) = operation(row);
        if !has_epoch(&mut body, Epoch(5)) {
            continue;
        }
        kinds.insert(kind(&body));
        for column in COLUMNS {
            assert_eq!(outcome(&mut in_situation(column, Some(MissKind::Put), true), body.clone()), "stale", "{row}");
        }
    }
    assert_eq!(kinds.len(), 9, "every operation that is about the clouds, and every one that is about copies");
}

#[test]
fn a_refused_trip_is_on_record_once_for_each_filer_and_names_what_is_missing() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.fail_standby();
    for number in 1..=3 {
        bench.ok(write(file, &[extent(number * 10, 10, seg(number))]));
        bench.ok(stored(seg(number), [true, false], Epoch(2)));
    }
    for filer in [AMS, NYC, AMS, NYC] {
        bench.filer = filer;
        let OpError::Refused(why) = bench.err(trip(CloudId::A, Epoch(2))) else { panic!("refused") };
        assert!(why.contains("failed") && why.contains("3 pieces"), "{why}");
    }
    let refused: Vec<Decision> = bench.decisions().into_iter().filter(|past| !past.carried).collect();
    assert_eq!(refused.iter().map(|past| past.filer).collect::<Vec<_>>(), [NYC, AMS]);
    assert!(refused.iter().all(|past| past.cloud == CloudId::A && past.epoch == Epoch(2)));
    assert_eq!(bench.roles().active, CloudId::A);
}

#[test]
fn half_of_the_voters_are_no_majority_and_a_filer_votes_once() {
    let ballot = |filer, failures| {
        let view = CloudView { reachable: None, failures, slow: false };
        Ballot { filer: FilerId(filer), epoch: Epoch(1), views: [view, view] }
    };
    let vote = |voters, ballots: Vec<Ballot>| {
        let (cloud, epoch, why) = (CloudId::B, Epoch(1), "x".repeat(TEXT_BYTES_MAX - 1) + "é");
        Bench::new().apply(OpBody::Trip { cloud, epoch, why, ballots, voters, policy: TripPolicy::Majority })
    };
    let refused = |answer| matches!(answer, Err(OpError::Refused(_)));
    assert!(refused(vote(3, vec![])));
    assert!(refused(vote(2, vec![ballot(1, 3), ballot(2, 0)])));
    assert!(refused(vote(3, vec![ballot(1, 3), ballot(1, 3), ballot(2, 0)])), "one filer twice");
    assert!(refused(vote(0, vec![ballot(1, 3), ballot(2, 0)])), "more have voted than are counted");
    assert!(vote(3, vec![ballot(1, 3), ballot(2, 1), ballot(3, 0)]).is_ok());
    let crowd = (0..=BALLOTS_MAX as u64).map(|filer| ballot(filer, 1)).collect();
    assert!(matches!(vote(3, crowd), Err(OpError::Invalid(_))));
}

/// Two filers of five answer, and both see the cloud failing: that was taken for a majority.
#[test]
fn a_majority_is_one_of_all_voters_and_of_this_epoch() {
    let vote = |voters, ballots: &[(u64, u64, bool)]| {
        let ballots = ballots.iter().map(|&(filer, epoch, slow)| {
            let view = CloudView { reachable: Some(true), failures: 0, slow };
            Ballot { filer: FilerId(filer), epoch: Epoch(epoch), views: [view, view] }
        });
        let (cloud, epoch, why, ballots) = (CloudId::B, Epoch(1), "slow".into(), ballots.collect());
        Bench::new().apply(OpBody::Trip { cloud, epoch, why, ballots, voters, policy: TripPolicy::Majority })
    };
    let Err(OpError::Refused(why)) = vote(5, &[(1, 1, true), (2, 1, true)]) else { panic!("two of five") };
    assert!(why.contains("only 2 of 5 filers"), "{why}");
    assert!(vote(5, &[(1, 1, true), (2, 1, true), (3, 1, false)]).is_err());
    assert!(vote(5, &[(1, 1, true), (2, 1, true), (3, 0, true)]).is_err(), "of an earlier epoch");
    assert!(vote(5, &[(1, 1, true), (2, 1, true), (3, 2, true)]).is_err(), "of another epoch");
    assert!(vote(5, &[(1, 1, true), (2, 1, true), (3, 1, true)]).is_ok());
    assert!(vote(1, &[(1, 1, true)]).is_ok(), "a filer alone is all of them");
}

#[test]
fn only_the_newest_decisions_are_kept() {
    let mut bench = Bench::new();
    for round in 0..DECISIONS_KEPT_MAX as u64 + 10 {
        let to = if round % 2 == 0 { CloudId::B } else { CloudId::A };
        bench.ok(OpBody::Activate { to, epoch: Epoch(round + 1), by: "operator".into() });
    }
    let kept = bench.decisions();
    assert_eq!(kept.len(), DECISIONS_KEPT_MAX);
    assert_eq!(kept[0].epoch, bench.roles().epoch);
    assert_eq!(read::decisions(&bench.kv, 2).expect("memory"), kept[..2]);
    assert!(StateRead::get(&bench.kv, &keys::decision(0)).expect("memory").is_none());
}
