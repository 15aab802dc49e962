//! Every state of a cloud, with every kind of input, in both roles, at a leader and at another filer.

use super::*;
use CloudState::*;

/// What happens to cloud A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Fails160Times,
    SlowForTooLong,
    Succeeds,
    ProbeSucceeds,
    ProbeFails,
    EveryoneReachesIt,
    ItsLogIsEmpty,
    TimePasses,
    /// The mesh answers what was asked for it, and agrees or refuses; `Unasked`: nothing was asked.
    AgreedUnasked,
    RefusedUnasked,
    TripAgreed,
    TripRefused,
    /// A peer asks what this filer sees of it.
    BallotAsked,
}
use Event::*;

type Row = (CloudState, Event, &'static [&'static str], &'static [&'static str]);

/// State, event, orders at another filer, orders at the leader. The role makes no difference here: it matters to the vote.
const TABLE: [Row; 39] = [
    (Healthy, Fails160Times, &["Trip"], &["Trip"]),
    (Healthy, SlowForTooLong, &["Trip"], &["Trip"]),
    (Healthy, Succeeds, &[], &[]),
    (Healthy, ProbeSucceeds, &[], &[]),
    (Healthy, ProbeFails, &[], &[]),
    (Healthy, EveryoneReachesIt, &[], &[]),
    (Healthy, ItsLogIsEmpty, &[], &[]),
    (Healthy, TimePasses, &[], &[]),
    (Healthy, AgreedUnasked, &[], &[]),
    (Healthy, RefusedUnasked, &[], &[]),
    // The new roles are on their way; and who was refused asks again when the piece fails again.
    (Healthy, TripAgreed, &[], &[]),
    (Healthy, TripRefused, &["Trip"], &["Trip"]),
    (Healthy, BallotAsked, &["Probe"], &["Probe"]),
    (Resyncing, Fails160Times, &["Trip"], &["Trip"]),
    (Resyncing, SlowForTooLong, &["Trip"], &["Trip"]),
    (Resyncing, Succeeds, &[], &[]),
    (Resyncing, ProbeSucceeds, &[], &[]),
    (Resyncing, ProbeFails, &[], &[]),
    (Resyncing, EveryoneReachesIt, &[], &[]),
    (Resyncing, ItsLogIsEmpty, &[], &["FinishResync"]),
    (Resyncing, TimePasses, &[], &[]),
    (Resyncing, AgreedUnasked, &[], &[]),
    (Resyncing, RefusedUnasked, &[], &[]),
    (Resyncing, TripAgreed, &[], &[]),
    (Resyncing, TripRefused, &["Trip"], &["Trip"]),
    (Resyncing, BallotAsked, &["Probe"], &["Probe"]),
    (Failed, Fails160Times, &[], &[]),
    (Failed, SlowForTooLong, &[], &[]),
    (Failed, Succeeds, &[], &[]),
    (Failed, ProbeSucceeds, &["Reached"], &["Reached"]),
    (Failed, ProbeFails, &[], &[]),
    (Failed, EveryoneReachesIt, &[], &["StartResync"]),
    (Failed, ItsLogIsEmpty, &[], &[]),
    (Failed, TimePasses, &["Probe"], &["Probe"]),
    (Failed, AgreedUnasked, &[], &[]),
    (Failed, RefusedUnasked, &[], &[]),
    // It has failed by another filer's trip meanwhile: there is nothing to trip.
    (Failed, TripAgreed, &[], &[]),
    (Failed, TripRefused, &[], &[]),
    // Its probe is under way.
    (Failed, BallotAsked, &[], &[]),
];

fn name(output: &Output) -> &'static str {
    match output {
        Output::Trip { .. } => "Trip",
        Output::Probe { .. } => "Probe",
        Output::Reached { .. } => "Reached",
        Output::StartResync { .. } => "StartResync",
        Output::FinishResync { .. } => "FinishResync",
        Output::Failback { .. } => "Failback",
    }
}

/// The orders that follow an event, at a machine for which everything else is as usual.
fn orders(state: CloudState, active: CloudId, leads: bool, event: Event) -> Vec<Output> {
    let mut roles = roles(7, active, [state, Healthy]);
    roles.clouds[0].missed_puts = 1;
    let mut bench = Bench::with(Settings { failback_auto: false, ..Settings::default() }, roles.clone());
    if leads {
        assert_eq!(bench.leads(), []);
    }
    if event == TimePasses {
        return bench.later(3_600_000);
    }
    // The first probe of a failed cloud is under way.
    bench.later(500);
    let mut outputs: Vec<Output> = Vec::new();
    match event {
        Fails160Times => (0..160).for_each(|_| outputs.extend(bench.fail(CloudId::A, 1))),
        SlowForTooLong => (0..12).for_each(|_| {
            bench.now_ms += 10_000;
            outputs.extend(bench.succeed(CloudId::A, 1, 10_000));
        }),
        Succeeds => outputs.extend(bench.succeed(CloudId::A, 1, 5)),
        ProbeSucceeds => outputs.extend(bench.probed(CloudId::A, true)),
        ProbeFails => outputs.extend(bench.probed(CloudId::A, false)),
        EveryoneReachesIt => {
            bench.probed(CloudId::A, true);
            bench.answered(CloudId::A, true);
            outputs.extend(bench.say(Input::Roles(reached_by(roles, &FILERS))));
        }
        ItsLogIsEmpty => {
            roles.clouds[0].missed_puts = 0;
            outputs.extend(bench.say(Input::Roles(roles)));
        }
        AgreedUnasked => outputs.extend(bench.answered(CloudId::A, true)),
        RefusedUnasked => outputs.extend(bench.answered(CloudId::A, false)),
        TripAgreed | TripRefused => {
            (0..160).for_each(|_| drop(bench.fail(CloudId::A, 1)));
            outputs.extend(bench.answered(CloudId::A, event == TripAgreed));
            bench.now_ms += 5_000;
            if event == TripRefused {
                outputs.extend(bench.fail(CloudId::A, 1));
            }
        }
        BallotAsked => {
            // The other cloud has just been seen.
            bench.succeed(CloudId::B, 1, 5);
            outputs.extend(bench.say(Input::BallotAsked));
        }
        TimePasses => unreachable!("returned above"),
    }
    outputs
}

#[test]
fn every_state_has_its_answer_to_every_event() {
    for (state, event, at_another, at_the_leader) in TABLE {
        for active in CloudId::BOTH {
            for (leads, expected) in [(false, at_another), (true, at_the_leader)] {
                let outputs = orders(state, active, leads, event);
                let names: Vec<_> = outputs.iter().map(name).collect();
                assert_eq!(names, expected, "{state:?} cloud, {event:?}, cloud {active} active, leads: {leads}");
            }
        }
    }
}
