//! A cloud: objects with their MD5s, the time that a call takes, and every trouble that a cloud can be.
//!
//! A call that was sent happens at the cloud whether or not its caller still waits: a put may come minutes after its caller
//! was told that it timed out, or after its caller has died.

mod trouble;

use super::{power::Power, watch::Watch};
use crate::{
    coverage::Coverage,
    dice::{Dice, FNV_START, fnv},
    invariants::Ended,
    trace::Trace,
};
use bytes::Bytes;
use mesh::FilerId;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use storage::{
    cloud::{Cloud, CloudError, Listed, Page, Proof, Receipt},
    ids::{CloudId, Md5},
};
use tokio::{sync::oneshot, time::sleep};

pub use trouble::Trouble;

/// Objects of a page.
const PAGE_OBJECTS_MAX: usize = 1000;
/// How long a caller waits, in milliseconds: longer than what counts as slow, so that slowness is seen as such.
const CALL_MS_MAX: u64 = 15_000;

/// Bodies whose MD5 a world keeps.
const MD5S_KEPT: usize = 16;

/// MD5s of the bodies that were put last: each goes to both clouds, and again after a failure. A clone is another handle.
#[derive(Clone, Default)]
pub struct Md5s(Arc<Mutex<VecDeque<(Bytes, Md5)>>>);

impl Md5s {
    fn of(&self, body: &Bytes) -> Md5 {
        let mut kept = self.0.lock().expect("no holder of the MD5s panics");
        if let Some((_, md5)) = kept.iter().find(|(known, _)| known == body) {
            return *md5;
        }
        let md5 = Md5::of(body);
        kept.truncate(MD5S_KEPT - 1);
        kept.push_front((body.clone(), md5));
        md5
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Put,
    Get,
    Head,
    Delete,
    List,
}

/// What becomes of one call.
struct Fate {
    /// When it happens at the cloud; `None`: never.
    happens_ms: Option<u64>,
    answers_ms: u64,
    /// What is answered instead of the result.
    instead: Option<CloudError>,
    /// A bit of what is read or put is flipped.
    flip: bool,
}

struct Object {
    body: Bytes,
    md5: Md5,
    /// It was taken wrong: its last byte is not what was put.
    taken_wrong: bool,
}

impl Object {
    /// Whether this part is not what was put.
    fn is_wrong_at(&self, range: &Range<u64>) -> bool {
        self.taken_wrong && !range.is_empty() && range.end == self.body.len() as u64
    }
}

/// What happened at the cloud.
struct Done<T> {
    value: T,
    /// It is not what was put, as whoever checks it sees.
    wrong: bool,
}

impl<T> Done<T> {
    fn right(value: T) -> Self {
        Self { value, wrong: false }
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    troubles: BTreeMap<u64, Trouble>,
    /// Objects that the cloud has lost after its receipt, and not been given again.
    lost: BTreeSet<String>,
}

/// A cloud. A clone is another handle.
#[derive(Clone)]
pub struct SimCloud {
    id: CloudId,
    state: Arc<Mutex<State>>,
    md5s: Md5s,
    dice: Arc<Dice>,
    trace: Trace,
    coverage: Coverage,
    watch: Watch,
}

impl SimCloud {
    /// An empty cloud that does nothing wrong.
    pub fn new(id: CloudId, dice: Dice, md5s: Md5s, trace: Trace, coverage: Coverage, watch: Watch) -> Self {
        Self { id, state: Arc::default(), md5s, dice: Arc::new(dice), trace, coverage, watch }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the cloud panics")
    }

    /// Which of the two it is.
    pub fn id(&self) -> CloudId {
        self.id
    }

    /// Begins a trouble, under a number of its own.
    pub fn trouble(&self, number: u64, trouble: Trouble) {
        self.lock().troubles.insert(number, trouble);
    }

    /// Ends a trouble.
    pub fn end_trouble(&self, number: u64) {
        self.lock().troubles.remove(&number);
    }

    /// Ends every trouble.
    pub fn heal(&self) {
        self.lock().troubles.clear();
    }

    /// Whether nothing answers.
    pub fn is_out(&self) -> bool {
        self.lock().troubles.values().any(|trouble| *trouble == Trouble::Outage)
    }

    /// Loses an object that it has given a receipt for.
    pub fn lose(&self, key: &str) -> bool {
        let mut state = self.lock();
        let had = state.objects.remove(key).is_some();
        if had {
            state.lost.insert(key.into());
        }
        had
    }

    /// Whether it has lost an object and not been given it again.
    pub fn has_lost(&self, key: &str) -> bool {
        self.lock().lost.contains(key)
    }

    /// An object.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.lock().objects.get(key).map(|object| object.body.clone())
    }

    /// The MD5 of an object.
    pub fn md5(&self, key: &str) -> Option<Md5> {
        self.lock().objects.get(key).map(|object| object.md5)
    }

    /// Names and MD5s of the segments that it has.
    pub fn segments(&self) -> BTreeMap<String, Md5> {
        let state = self.lock();
        let segments = state.objects.iter().filter(|(key, _)| key.starts_with("segments/"));
        segments.map(|(key, object)| (key.clone(), object.md5)).collect()
    }

    /// The cloud as one run of one filer sees it.
    pub fn end(&self, me: FilerId, power: Power) -> CloudEnd {
        CloudEnd { me, power, cloud: self.clone() }
    }

    fn failed(call: Call, key: &str, why: &str) -> CloudError {
        CloudError::Failed { attempted: format!("{call:?} {key}"), why: why.into() }
    }

    /// Decides what becomes of a call.
    fn fate(&self, from: FilerId, call: Call, key: &str) -> Fate {
        let took_ms = 4 + self.dice.below(12);
        let mut fate = Fate { happens_ms: Some(took_ms / 2), answers_ms: took_ms, instead: None, flip: false };
        let troubles: Vec<Trouble> = self.lock().troubles.values().copied().collect();
        let hit = |name, per_mille| {
            let hit = self.dice.per_mille(per_mille);
            if hit {
                self.coverage.hit(name);
            }
            hit
        };
        // What becomes of a put is of interest of its own.
        let of_puts = |name: &'static str| if call == Call::Put { name } else { "timeouts of other calls" };
        let timed_out = || CloudError::TimedOut { attempted: format!("{call:?} {key}"), after_ms: CALL_MS_MAX };
        for trouble in troubles {
            let (happens_ms, answers_ms, instead) = match trouble {
                Trouble::Outage => (None, took_ms, Self::failed(call, key, "connection refused")),
                Trouble::CutFrom { filer } if filer == from.0 => {
                    (None, took_ms, Self::failed(call, key, "no route to host"))
                }
                Trouble::Denied => {
                    let attempted = format!("{call:?} {key}");
                    (None, took_ms, CloudError::Denied { attempted, why: "403, the key was revoked".into() })
                }
                Trouble::Slow { ms } => {
                    let ms = self.dice.between(ms / 2, ms);
                    // Of several the slowest counts.
                    fate.answers_ms = fate.answers_ms.max(took_ms + ms);
                    fate.happens_ms = fate.happens_ms.map(|at| at.max(took_ms / 2 + ms));
                    continue;
                }
                Trouble::Errors { per_mille } if hit("5xx answers", per_mille) => {
                    (None, took_ms, Self::failed(call, key, "500, internal error"))
                }
                Trouble::Throttled { per_mille } if hit("throttled answers", per_mille) => {
                    (None, took_ms, Self::failed(call, key, "503, slow down"))
                }
                Trouble::Unforeseen { per_mille } if hit("unforeseen answers", per_mille) => {
                    let happens = self.dice.per_mille(300).then_some(took_ms / 2);
                    (happens, took_ms, Self::failed(call, key, "418, I'm a teapot"))
                }
                Trouble::Resets { per_mille } if hit("reset connections", per_mille) => {
                    let happens = self.dice.per_mille(500).then_some(took_ms / 2);
                    (happens, took_ms, Self::failed(call, key, "connection reset by peer"))
                }
                Trouble::TimeoutsHappened { per_mille } if hit(of_puts("timeouts, put happened"), per_mille) => {
                    (Some(took_ms), CALL_MS_MAX, timed_out())
                }
                Trouble::TimeoutsLost { per_mille } if hit(of_puts("timeouts, put lost"), per_mille) => {
                    (None, CALL_MS_MAX, timed_out())
                }
                Trouble::Late { per_mille, ms } if call == Call::Put && hit("late puts", per_mille) => {
                    (Some(self.dice.between(ms / 2, ms)), CALL_MS_MAX, timed_out())
                }
                Trouble::Shard { one_in }
                    if !key.starts_with("probes/") && fnv(FNV_START, key.as_bytes()).is_multiple_of(one_in) =>
                {
                    self.coverage.hit("calls of a bad shard");
                    (None, took_ms, Self::failed(call, key, "500, the shard is not available"))
                }
                Trouble::WrongMd5 { per_mille } if call == Call::Put && hit("wrong MD5s", per_mille) => {
                    let (expected, got) = ("the MD5 of what was sent".into(), "another one".into());
                    let instead = Some(CloudError::Corrupt { key: key.into(), expected, got });
                    let flip = self.dice.per_mille(500);
                    return Fate { happens_ms: Some(took_ms / 2), answers_ms: took_ms, instead, flip };
                }
                Trouble::Truncated { per_mille } if call == Call::Get && hit("truncated reads", per_mille) => {
                    (None, took_ms, Self::failed(call, key, "the body ended too early"))
                }
                Trouble::Flipped { per_mille } if call == Call::Get && hit("flipped reads", per_mille) => {
                    fate.flip = true;
                    continue;
                }
                _ => continue,
            };
            return Fate { happens_ms, answers_ms, instead: Some(instead), flip: false };
        }
        if fate.answers_ms > CALL_MS_MAX {
            fate = Fate { answers_ms: CALL_MS_MAX, instead: Some(timed_out()), ..fate };
        }
        fate
    }
}

/// What a cloud keeps of a body that it took wrong.
fn flipped(body: &Bytes) -> (Bytes, Md5) {
    let mut wrong = body.to_vec();
    if let Some(byte) = wrong.last_mut() {
        *byte ^= 1;
    }
    let md5 = Md5::of(&wrong);
    (wrong.into(), md5)
}

/// A cloud as one run of one filer sees it.
pub struct CloudEnd {
    me: FilerId,
    power: Power,
    cloud: SimCloud,
}

impl CloudEnd {
    /// Makes a call: `effect` happens at the cloud, if and when it does.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        key: &str,
        effect: impl FnOnce(&mut State, bool) -> Result<Done<T>, CloudError> + Send + 'static,
    ) -> Result<(T, bool), CloudError> {
        self.power.needed().await;
        let cloud = &self.cloud;
        cloud.trace.note(self.me, format_args!("cloud {} {call:?} {key}", cloud.id));
        let (attempt, of_piece) = (tokio::task::id(), call != Call::Delete);
        cloud.watch.cloud_called(self.me, cloud.id, (key, of_piece), attempt);
        let Fate { happens_ms, answers_ms, instead, flip } = cloud.fate(self.me, call, key);
        let (told, telling) = oneshot::channel();
        if let Some(happens_ms) = happens_ms {
            let state = cloud.state.clone();
            // A task of its own: what was sent happens, whatever becomes of its sender.
            tokio::spawn(async move {
                sleep(Duration::from_millis(happens_ms)).await;
                let _ = told.send(effect(&mut state.lock().expect("no holder of the cloud panics"), flip));
            });
        }
        sleep(Duration::from_millis(answers_ms)).await;
        let result = match instead {
            Some(error) => Err(error),
            None => telling.await.unwrap_or_else(|_| Err(SimCloud::failed(call, key, "no answer"))),
        };
        self.power.needed().await;
        match &result {
            Ok(_) => cloud.trace.note(self.me, format_args!("cloud {} did {call:?} {key}", cloud.id)),
            Err(error) => cloud.trace.note(self.me, format_args!("cloud {}: {error}", cloud.id)),
        }
        // Whoever asks for a head wants to know whether the object is there: that it is not is an answer.
        let is_answer = call == Call::Head && matches!(result, Err(CloudError::NotFound { .. }));
        let failed = result.is_err() && !is_answer;
        let wrong = result.as_ref().is_ok_and(|done| flip || done.wrong);
        let ended = Ended { key, of_piece, attempt, failed, wrong, took_ms: answers_ms };
        cloud.watch.call_ended(self.me, cloud.id, &ended);
        result.map(|done| (done.value, flip))
    }
}

#[async_trait::async_trait]
impl Cloud for CloudEnd {
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        let (me, id) = (self.me, self.cloud.id);
        let (name, md5s, watch) = (key.to_string(), self.cloud.md5s.clone(), self.cloud.watch.clone());
        let effect = move |state: &mut State, flip: bool| {
            let (got, bytes) = (md5s.of(&body), body.len() as u64);
            watch.put_arrived(me, id, &name, md5, got);
            if got != md5 {
                return Err(CloudError::Corrupt { key: name, expected: md5.to_string(), got: got.to_string() });
            }
            let (body, md5) = if flip { flipped(&body) } else { (body, md5) };
            // What it took wrong is not what it was to be given again.
            if !flip {
                state.lost.remove(&name);
            }
            state.objects.insert(name, Object { body, md5, taken_wrong: flip });
            Ok(Done::right(Receipt { md5, bytes, proof: Proof::Answer }))
        };
        Ok(self.call(Call::Put, key, effect).await?.0)
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError> {
        let name = key.to_string();
        let effect = move |state: &mut State, _| {
            let missing = || CloudError::NotFound { key: name.clone() };
            let object = state.objects.get(&name).ok_or_else(missing)?;
            if range.end > object.body.len() as u64 || range.start > range.end {
                return Err(SimCloud::failed(Call::Get, &name, "416, no such range"));
            }
            let part = object.body.slice(range.start as usize..range.end as usize);
            Ok(Done { value: part, wrong: object.is_wrong_at(&range) })
        };
        let (part, flip) = self.call(Call::Get, key, effect).await?;
        if !flip || part.is_empty() {
            return Ok(part);
        }
        let mut wrong = part.to_vec();
        let at = self.cloud.dice.below(wrong.len() as u64) as usize;
        wrong[at] ^= 1 << self.cloud.dice.below(8);
        Ok(wrong.into())
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        let name = key.to_string();
        let effect = move |state: &mut State, _| {
            let object = state.objects.get(&name).ok_or_else(|| CloudError::NotFound { key: name.clone() })?;
            Ok(Done::right(Listed { bytes: object.body.len() as u64, md5: Some(object.md5), key: name }))
        };
        Ok(self.call(Call::Head, key, effect).await?.0)
    }

    async fn delete(&self, key: &str) -> Result<(), CloudError> {
        let name = key.to_string();
        let effect = move |state: &mut State, _| {
            state.lost.remove(&name);
            state.objects.remove(&name);
            Ok(Done::right(()))
        };
        self.call(Call::Delete, key, effect).await.map(|((), _)| ())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError> {
        let (start, after) = (prefix.to_string(), after.map(str::to_string));
        let effect = move |state: &mut State, _| {
            let behind = |key: &str| after.as_deref().is_none_or(|after| key > after);
            let mut found = state.objects.iter().filter(|(key, _)| key.starts_with(&start) && behind(key));
            let listed = |(key, object): (&String, &Object)| Listed {
                key: key.clone(),
                bytes: object.body.len() as u64,
                md5: Some(object.md5),
            };
            let objects = found.by_ref().take(PAGE_OBJECTS_MAX).map(listed).collect();
            Ok(Done::right(Page { objects, more: found.next().is_some() }))
        };
        Ok(self.call(Call::List, prefix, effect).await?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;

    /// Found by seed 611280613 of the mixed scene: a damaged segment was looked for where a put of it was kept wrong.
    #[tokio::test(start_paused = true)]
    async fn a_read_of_what_was_taken_wrong_is_a_wrong_answer() {
        // An attempt is a task.
        let reads = tokio::spawn(async {
            let (trace, coverage) = (Trace::new(None), Coverage::default());
            let watch = Watch::new(
                trace.clone(),
                coverage.clone(),
                Recording::default(),
                &storage::health::Settings::default(),
            );
            let cloud =
                SimCloud::new(CloudId::A, Dice::of(1, "cloud"), Md5s::default(), trace, coverage, watch.clone());
            let (filer, key, body) = (FilerId(1), "segments/1", Bytes::from_static(b"what was put"));
            let (end, bytes, md5) = (cloud.end(filer, Power::default()), body.len() as u64, Md5::of(&body));
            cloud.trouble(1, Trouble::WrongMd5 { per_mille: 1000 });
            let mut failures = 0;
            // Half of them are kept as they were put.
            while cloud.md5(key).is_none_or(|kept| kept == md5) {
                end.put(key, body.clone(), md5).await.expect_err("its answer is wrong");
                failures += 1;
            }
            cloud.heal();
            assert_ne!(end.get(key, 0..bytes).await.expect("the cloud is well"), body);
            watch.counted(filer, CloudId::A, failures + 1);
            assert_eq!(watch.violation(), None, "whoever checks it counts a failure");
            assert_eq!(end.get(key, 0..bytes - 1).await.expect("the cloud is well"), body.slice(..bytes as usize - 1));
            end.put(key, body.clone(), md5).await.expect("the cloud is well");
            assert_eq!(end.get(key, 0..bytes).await.expect("the cloud is well"), body);
            watch.counted(filer, CloudId::A, failures + 2);
            assert!(watch.is_violated(), "nothing else is wrong");
        });
        reads.await.expect("every answer is as it should be");
    }

    /// Found by seed 611403590 of the mixed scene: a put got a body that its filer had just mended, with the MD5 of before.
    #[tokio::test(start_paused = true)]
    async fn a_put_of_a_body_that_is_not_what_its_md5_says_is_told() {
        let puts = tokio::spawn(async {
            let (trace, coverage) = (Trace::new(None), Coverage::default());
            let watch = Watch::new(
                trace.clone(),
                coverage.clone(),
                Recording::default(),
                &storage::health::Settings::default(),
            );
            let cloud =
                SimCloud::new(CloudId::A, Dice::of(1, "cloud"), Md5s::default(), trace, coverage, watch.clone());
            let (end, body) = (cloud.end(FilerId(1), Power::default()), Bytes::from_static(b"what was put"));
            cloud.trouble(1, Trouble::WrongMd5 { per_mille: 1000 });
            end.put("segments/1", body.clone(), Md5::of(&body)).await.expect_err("the cloud's answer is wrong");
            assert_eq!(watch.violation(), None);
            end.put("segments/1", body, Md5::of(b"what it was")).await.expect_err("the cloud's answer is right");
            assert!(watch.is_violated());
        });
        puts.await.expect("every answer is as it should be");
    }
}
