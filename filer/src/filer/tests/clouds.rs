//! A cloud in memory, with the MD5s of a real one and faults that are switched on and off.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use storage::{
    cloud::{Cloud, CloudError, Listed, Page, Proof, Receipt},
    ids::Md5,
};

/// What a cloud says that fails without further reason.
const SLOW_DOWN: &str = "503, slow down";
/// Objects of a page.
const PAGE_OBJECTS_MAX: usize = 1000;

/// How long a silent cloud is waited for.
pub const SILENT_MS: u64 = 10_000;

/// How calls of a kind fail.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// With these words.
    Says(String),
    /// They are refused, for good as far as the cloud knows.
    Denied,
    /// No answer comes within [`SILENT_MS`].
    Silent,
    /// As [`Trouble::Silent`]; a put happens all the same, so many milliseconds after it was begun.
    Late(u64),
}

/// What a cloud was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Put,
    Get,
    Head,
    Delete,
    List,
}

/// A cloud. A clone is another handle.
#[derive(Clone, Default)]
pub struct MemoryCloud {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    down: bool,
    troubles: BTreeMap<Call, Trouble>,
    damaged: BTreeSet<String>,
    damaged_for_good: BTreeSet<String>,
    /// Reads of an object that are damaged on their way.
    damaged_on_the_way: BTreeMap<String, u64>,
    attempts: BTreeMap<(Call, String), u64>,
}

impl MemoryCloud {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test holds it")
    }

    /// Every call fails, or none does.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Calls of this kind fail, or they do not.
    pub fn refuse(&self, call: Call, refused: bool) {
        self.answer(call, refused.then_some(SLOW_DOWN));
    }

    /// Calls of this kind fail with such words, or they do not.
    pub fn answer(&self, call: Call, why: Option<&str>) {
        self.trouble(call, why.map(|why| Trouble::Says(why.into())));
    }

    /// Calls of this kind fail so, or they do not.
    pub fn trouble(&self, call: Call, trouble: Option<Trouble>) {
        let mut state = self.state();
        match trouble {
            Some(trouble) => state.troubles.insert(call, trouble),
            None => state.troubles.remove(&call),
        };
    }

    /// Flips a bit of what reads of this object give, until it is put again.
    pub fn damage(&self, key: &str) {
        self.state().damaged.insert(key.into());
    }

    /// As [`MemoryCloud::damage`], whatever is put.
    pub fn damage_for_good(&self, key: &str) {
        self.state().damaged_for_good.insert(key.into());
    }

    /// Flips a bit of what so many reads of this object give, and of none behind them.
    pub fn damage_on_the_way(&self, key: &str, reads: u64) {
        self.state().damaged_on_the_way.insert(key.into(), reads);
    }

    /// Ends that.
    pub fn heal(&self, key: &str) {
        self.state().damaged_for_good.remove(key);
    }

    /// Loses an object.
    pub fn lose(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// The objects of segments.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        let mut objects = self.state().objects.clone();
        objects.retain(|key, _| key.starts_with("segments/"));
        objects
    }

    /// How often each object was asked for by such a call.
    pub fn attempts(&self, call: Call) -> BTreeMap<String, u64> {
        let state = self.state();
        state.attempts.iter().filter(|((made, _), _)| *made == call).map(|((_, key), n)| (key.clone(), *n)).collect()
    }

    async fn begin(&self, call: Call, key: &str) -> Result<(), CloudError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let trouble = {
            let mut state = self.state();
            *state.attempts.entry((call, key.into())).or_default() += 1;
            // Probes show that a cloud takes and gives data at all.
            let spares_probes = |trouble: &Trouble| !matches!(trouble, Trouble::Says(why) if why == SLOW_DOWN);
            let trouble = state.troubles.get(&call).cloned();
            let trouble = trouble.filter(|trouble| !(key.starts_with("probes/") && spares_probes(trouble)));
            trouble.or_else(|| state.down.then(|| Trouble::Says(SLOW_DOWN.into())))
        };
        let attempted = format!("{call:?} {key}");
        match trouble {
            None => Ok(()),
            Some(Trouble::Says(why)) => Err(CloudError::Failed { attempted, why }),
            Some(Trouble::Denied) => Err(CloudError::Denied { attempted, why: "403, kept by a policy".into() }),
            Some(Trouble::Silent | Trouble::Late(_)) => {
                tokio::time::sleep(Duration::from_millis(SILENT_MS)).await;
                Err(CloudError::TimedOut { attempted, after_ms: SILENT_MS })
            }
        }
    }
}

#[async_trait::async_trait]
impl Cloud for MemoryCloud {
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        if let Some(Trouble::Late(ms)) = self.state().troubles.get(&Call::Put) {
            let (cloud, ms, key, body) = (self.clone(), *ms, key.to_string(), body.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                cloud.state().objects.insert(key, body);
            });
        }
        self.begin(Call::Put, key).await?;
        let got = Md5::of(&body);
        if got != md5 {
            return Err(CloudError::Corrupt { key: key.into(), expected: md5.to_string(), got: got.to_string() });
        }
        let mut state = self.state();
        let bytes = body.len() as u64;
        state.damaged.remove(key);
        state.objects.insert(key.into(), body);
        Ok(Receipt { md5, bytes, proof: Proof::Answer })
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError> {
        self.begin(Call::Get, key).await?;
        let mut state = self.state();
        let on_the_way = state.damaged_on_the_way.get_mut(key).filter(|reads| **reads > 0).map(|reads| {
            *reads -= 1;
            *reads as usize
        });
        let object = state.objects.get(key).ok_or_else(|| CloudError::NotFound { key: key.into() })?;
        if range.end > object.len() as u64 || range.start > range.end {
            return Err(CloudError::Failed { attempted: format!("Get {key}"), why: "416, no such range".into() });
        }
        let part = object.slice(range.start as usize..range.end as usize);
        if on_the_way.is_none() && !state.damaged.contains(key) && !state.damaged_for_good.contains(key) {
            return Ok(part);
        }
        let mut wrong = part.to_vec();
        // What lies there is the same each time; what happens on the way is not.
        let at = (wrong.len() / 2 + on_the_way.unwrap_or(0)) % wrong.len();
        wrong[at] ^= 4;
        Ok(wrong.into())
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        self.begin(Call::Head, key).await?;
        let state = self.state();
        let object = state.objects.get(key).ok_or_else(|| CloudError::NotFound { key: key.into() })?;
        Ok(Listed { key: key.into(), bytes: object.len() as u64, md5: Some(Md5::of(object)) })
    }

    async fn delete(&self, key: &str) -> Result<(), CloudError> {
        self.begin(Call::Delete, key).await?;
        self.state().objects.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError> {
        self.begin(Call::List, prefix).await?;
        let state = self.state();
        let mut found = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after))
            .map(|(key, body)| Listed { key: key.clone(), bytes: body.len() as u64, md5: Some(Md5::of(body)) });
        let objects = found.by_ref().take(PAGE_OBJECTS_MAX).collect();
        Ok(Page { objects, more: found.next().is_some() })
    }
}
