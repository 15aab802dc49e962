//! Whether the clouds are well, as one filer sees it, and what it asks the mesh to decide.
//!
//! Every attempt at a cloud is told to this machine once. It counts consecutive failures of each piece of data, trips a
//! cloud at the limit, probes a failed one, and, at the leader, moves a cloud that is back through resync to its role.
//! It owns the counts, when to ask, and when people are told; what is decided, by which rule, is `cloudfs`'s.
//!
//! ```text
//! attempts fail on one piece -> Trip -> (Failed) probes -> Reached -> StartResync -> (log empty) FinishResync -> Activate
//! ```

mod watch;

pub use watch::{Attempt, Streak};

use crate::{
    backoff::Backoff,
    cloudfs::{Ballot, CloudState, CloudView, Roles, TripPolicy},
    ids::{CloudId, Epoch, SegmentId},
};
use mesh::{FilerId, clock::Random};
use watch::Watch;

/// Limits of a filer's judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Consecutive failures on one piece of data that trip a cloud.
    pub failures_to_trip: u32,
    /// Consecutive failures on one piece of data after which people are told.
    pub failures_to_warn: u32,
    /// They are told that it works again when no piece has failed so often for this long, in milliseconds: a piece that fails
    /// now and then must not fill the log.
    pub works_again_ms: u64,
    /// An answer that takes longer than this, and than its bytes take at `bytes_per_s_min`, is slow, in milliseconds.
    pub slow_ms: u64,
    /// Least throughput that counts as healthy, in bytes per second: a thin uplink is no brown-out of a cloud.
    pub bytes_per_s_min: u64,
    /// A cloud that gave only slow answers for this long trips, in milliseconds. A pause of this length ends the spell.
    pub slow_for_ms: u64,
    /// Waits between two probes of a failed cloud.
    pub probe_backoff: Backoff,
    /// Wait after the answer to a question before the same is asked again, in milliseconds.
    pub ask_again_ms: u64,
    /// Pieces whose failures are counted at the same time; beyond it the least failed one is forgotten.
    pub pieces_max: usize,
    /// Whose trip carries.
    pub trip_policy: TripPolicy,
    /// How long what was seen of a cloud counts in a ballot, in milliseconds.
    pub ballot_ms_max: u64,
    /// Whether the preferred primary gets its role back by itself.
    pub failback_auto: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures_to_trip: 160,
            failures_to_warn: 8,
            works_again_ms: 300_000,
            slow_ms: 10_000,
            bytes_per_s_min: 256 << 10,
            slow_for_ms: 120_000,
            probe_backoff: Backoff { ms_min: 500, ms_max: 15_000 },
            ask_again_ms: 5_000,
            pieces_max: 4096,
            trip_policy: TripPolicy::Any,
            ballot_ms_max: 30_000,
            failback_auto: true,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One attempt at a cloud ended.
    Attempted { cloud: CloudId, attempt: Attempt },
    /// A probe ended.
    Probed { cloud: CloudId, failed: Option<String> },
    /// The agreed roles are these now.
    Roles(Roles),
    /// This filer leads, and these filers are live (itself too); or it does not.
    Leads(Option<Vec<FilerId>>),
    /// What was asked for a cloud got its answer; `refused` says why not, or that none came.
    Answered { cloud: CloudId, refused: Option<String> },
    /// A peer wants this filer's ballot: what it has not looked at lately it must look at, for the next time it is asked.
    BallotAsked,
    /// The deadline passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Gather ballots and propose a trip.
    Trip { cloud: CloudId, epoch: Epoch, why: String },
    /// Probe a cloud: a failed one, or one that a ballot is about.
    Probe { cloud: CloudId },
    /// Propose that this filer reaches the failed cloud (or no longer does).
    Reached { cloud: CloudId, epoch: Epoch, reached: bool },
    /// Propose to resync it.
    StartResync { cloud: CloudId, epoch: Epoch, live: Vec<FilerId> },
    /// Propose to end its resync.
    FinishResync { cloud: CloudId, epoch: Epoch },
    /// Propose to give the preferred primary its role back.
    Failback { to: CloudId, epoch: Epoch },
}

/// What people are told of a cloud that has not failed yet: once when it begins to fail, and once when it has worked again
/// for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A piece has failed [`Settings::failures_to_warn`] times in a row. `why`: the last failure.
    Fails { cloud: CloudId, streak: Streak, why: String },
    /// No piece has failed so often for [`Settings::works_again_ms`].
    Works { cloud: CloudId },
}

/// The machine.
#[derive(Debug)]
pub struct Health {
    me: FilerId,
    settings: Settings,
    roles: Option<Roles>,
    live: Option<Vec<FilerId>>,
    clouds: [Watch; 2],
    news: Vec<News>,
}

impl Health {
    /// A filer that has seen nothing yet.
    pub fn new(me: FilerId, settings: Settings) -> Self {
        Self { me, settings, roles: None, live: None, clouds: Default::default(), news: Vec::new() }
    }

    /// What this filer has last seen of both clouds, however long ago.
    pub fn views(&self) -> [CloudView; 2] {
        self.clouds.each_ref().map(|watch| watch.view(0))
    }

    /// What this filer has seen of both clouds lately, and the epoch it has seen it under; `None` before it knows one.
    pub fn ballot(&self, now_ms: u64) -> Option<Ballot> {
        let since_ms = now_ms.saturating_sub(self.settings.ballot_ms_max);
        let views = self.clouds.each_ref().map(|watch| watch.view(since_ms));
        Some(Ballot { filer: self.me, epoch: self.roles.as_ref()?.epoch, views })
    }

    /// Failed attempts at a cloud since the start, and the last one's reason.
    pub fn failures(&self, cloud: CloudId) -> (u64, Option<&str>) {
        let watch = &self.clouds[cloud.index()];
        (watch.failures_total, watch.last_failure.as_deref())
    }

    /// Consecutive failures of one piece.
    pub fn failures_of(&self, cloud: CloudId, piece: SegmentId) -> u32 {
        self.clouds[cloud.index()].failures.get(&piece).map_or(0, |failing| failing.count)
    }

    /// What fails at a cloud now, if anything; nothing of one that has failed, as it is not tried.
    pub fn streak(&self, now_ms: u64, cloud: CloudId) -> Option<Streak> {
        let tried = self.roles.as_ref().is_none_or(|roles| roles.cloud(cloud).state != CloudState::Failed);
        let since_ms = now_ms.saturating_sub(self.settings.ballot_ms_max);
        self.clouds[cloud.index()].streak(now_ms, since_ms).filter(|_| tried)
    }

    /// What there is to be told since this was called last.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// When to call again with [`Input::Tick`].
    pub fn deadline_ms(&self) -> Option<u64> {
        let roles = self.roles.as_ref()?;
        let due = |cloud: CloudId| {
            let watch = &self.clouds[cloud.index()];
            let probe = (roles.cloud(cloud).state == CloudState::Failed && !watch.probing).then_some(watch.probe_at_ms);
            let ask = (!watch.asking && self.wish(cloud).is_some()).then_some(watch.ask_at_ms);
            let works = watch.calm_since_ms.map(|since_ms| since_ms.saturating_add(self.settings.works_again_ms));
            probe.into_iter().chain(ask).chain(works).chain(self.lapses_ms(watch)).min()
        };
        CloudId::BOTH.into_iter().filter_map(due).min()
    }

    /// When what people were told of fails no more, as nobody tries it, if nothing else is seen until then.
    fn lapses_ms(&self, watch: &Watch) -> Option<u64> {
        let Settings { failures_to_warn, ballot_ms_max, .. } = self.settings;
        let is_seen = watch.told && watch.calm_since_ms.is_none();
        is_seen.then(|| watch.untried_from_ms(failures_to_warn, ballot_ms_max)).flatten()
    }

    /// Takes an input, gives what to do.
    pub fn handle(&mut self, now_ms: u64, random: &dyn Random, input: Input) -> Vec<Output> {
        match input {
            Input::Attempted { cloud, attempt } => {
                self.clouds[cloud.index()].attempted(now_ms, &self.settings, attempt);
                self.tell(now_ms, cloud);
            }
            Input::Probed { cloud, failed } => self.probed(now_ms, random, cloud, failed),
            Input::Roles(roles) => self.roles_changed(now_ms, roles),
            Input::Leads(live) => self.live = live,
            Input::Answered { cloud, refused } => {
                let watch = &mut self.clouds[cloud.index()];
                watch.asking = false;
                // After a yes too: the roles that follow from it may still be on their way.
                watch.ask_at_ms = now_ms + self.settings.ask_again_ms;
                if let (Some(_), Some(Output::Trip { epoch, .. })) = (refused, &watch.asked) {
                    watch.trips &= self.roles.as_ref().is_some_and(|roles| roles.epoch != *epoch);
                }
            }
            Input::BallotAsked => {
                let since_ms = now_ms.saturating_sub(self.settings.ballot_ms_max / 2);
                for watch in &mut self.clouds {
                    watch.look |= watch.seen_ms.is_none_or(|seen_ms| seen_ms < since_ms);
                }
            }
            Input::Tick => CloudId::BOTH.into_iter().for_each(|cloud| self.tell(now_ms, cloud)),
        }
        self.orders(now_ms)
    }

    /// Notes what people are to be told, after an attempt or a while.
    fn tell(&mut self, now_ms: u64, cloud: CloudId) {
        let (failures, works_again_ms) = (self.settings.failures_to_warn, self.settings.works_again_ms);
        let streak = self.streak(now_ms, cloud).filter(|streak| streak.failures >= failures);
        let watch = &mut self.clouds[cloud.index()];
        match streak {
            Some(streak) => {
                watch.calm_since_ms = None;
                if !std::mem::replace(&mut watch.told, true) {
                    let why = watch.last_failure.clone().unwrap_or_default();
                    self.news.push(News::Fails { cloud, streak, why });
                }
            }
            None if watch.told => {
                let since_ms = *watch.calm_since_ms.get_or_insert(now_ms);
                if now_ms >= since_ms.saturating_add(works_again_ms) {
                    (watch.told, watch.calm_since_ms) = (false, None);
                    self.news.push(News::Works { cloud });
                }
            }
            None => {}
        }
    }

    fn probed(&mut self, now_ms: u64, random: &dyn Random, cloud: CloudId, failed: Option<String>) {
        let backoff = self.settings.probe_backoff;
        let is_failed = self.roles.as_ref().is_some_and(|roles| roles.cloud(cloud).state == CloudState::Failed);
        let watch = &mut self.clouds[cloud.index()];
        (watch.probing, watch.look) = (false, false);
        if std::mem::take(&mut watch.probe_is_old) {
            return;
        }
        watch.saw(now_ms, failed.is_none());
        if !is_failed {
            // A look for a ballot is no probe of a failed cloud.
            return;
        }
        watch.probe_ok = Some(failed.is_none());
        // A cloud that answers is probed at the shortest wait, to notice at once when it stops again.
        watch.probe_failures = if failed.is_none() { 0 } else { watch.probe_failures.saturating_add(1) };
        watch.probe_at_ms = now_ms + backoff.wait_ms(watch.probe_failures.max(1), random);
        if let Some(why) = failed {
            watch.last_failure = Some(why);
        }
    }

    fn roles_changed(&mut self, now_ms: u64, roles: Roles) {
        // Whoever was away may find a cloud in the state that it had, and judged anew in between.
        let missed_some = self.roles.as_ref().is_some_and(|before| roles.epoch.0 > before.epoch.0 + 1);
        for cloud in CloudId::BOTH {
            let before = self.roles.as_ref().map(|roles| roles.cloud(cloud).state);
            let state = roles.cloud(cloud).state;
            if before != Some(state) || missed_some {
                let watch = &mut self.clouds[cloud.index()];
                // The old counts were about a cloud that the mesh has judged since.
                let (failures_total, last_failure) = (watch.failures_total, watch.last_failure.take());
                *watch = Watch {
                    failures_total,
                    last_failure,
                    probing: watch.probing,
                    probe_is_old: watch.probing,
                    asking: watch.asking,
                    ..Watch::default()
                };
                watch.probe_at_ms = now_ms + self.settings.probe_backoff.ms_min;
            }
        }
        self.roles = Some(roles);
    }

    fn orders(&mut self, now_ms: u64) -> Vec<Output> {
        let Some(roles) = &self.roles else {
            return Vec::new();
        };
        let mut outputs = Vec::new();
        for cloud in CloudId::BOTH {
            let wish = self.wish(cloud);
            let watch = &mut self.clouds[cloud.index()];
            let probe_due = match roles.cloud(cloud).state {
                CloudState::Failed => now_ms >= watch.probe_at_ms,
                CloudState::Healthy | CloudState::Resyncing => watch.look,
            };
            if probe_due && !watch.probing {
                watch.probing = true;
                outputs.push(Output::Probe { cloud });
            }
            if let Some(wish) =
                wish.filter(|wish| !watch.asking && (now_ms >= watch.ask_at_ms || !repeats(watch, wish)))
            {
                watch.asking = true;
                watch.asked = Some(wish.clone());
                outputs.push(wish);
            }
        }
        outputs
    }

    /// What this filer would ask the mesh to decide about a cloud, whether or not it is time to ask.
    fn wish(&self, cloud: CloudId) -> Option<Output> {
        let roles = self.roles.as_ref()?;
        let (epoch, status) = (roles.epoch, roles.cloud(cloud));
        let watch = &self.clouds[cloud.index()];
        match status.state {
            CloudState::Healthy | CloudState::Resyncing => {
                if watch.trips
                    && let Some(why) = watch.reason_to_trip(&self.settings, watch.worst())
                {
                    return Some(Output::Trip { cloud, epoch, why });
                }
                self.live.as_ref()?;
                if status.state == CloudState::Resyncing {
                    let empty = status.missed_puts == 0 && status.missed_deletes == 0;
                    return empty.then_some(Output::FinishResync { cloud, epoch });
                }
                let away = cloud == roles.preferred && cloud != roles.active;
                let failback = self.settings.failback_auto && away && !roles.held_by_operator;
                failback.then_some(Output::Failback { to: cloud, epoch })
            }
            CloudState::Failed => {
                let reached = watch.probe_ok?;
                if reached != status.reached_by.contains(&self.me) {
                    return Some(Output::Reached { cloud, epoch, reached });
                }
                let live =
                    self.live.as_ref().filter(|live| live.iter().all(|filer| status.reached_by.contains(filer)))?;
                reached.then(|| Output::StartResync { cloud, epoch, live: live.clone() })
            }
        }
    }
}

/// Whether a question is the one asked last; the reason of a trip, which counts on, makes no other question of it.
fn repeats(watch: &Watch, wish: &Output) -> bool {
    match (&watch.asked, wish) {
        (Some(Output::Trip { epoch: asked, .. }), Output::Trip { epoch, .. }) => asked == epoch,
        (asked, wish) => asked.as_ref() == Some(wish),
    }
}

#[cfg(test)]
mod tests;
