//! The network between filers: delay, loss, duplicates, reordering, slow links, cuts of one way or both.
//!
//! Sessions (QUIC) hide single losses behind a delay: a lost packet comes later. A cut way carries nothing: a call over it
//! waits for its deadline, or until the session is given up. A call whose answer is lost was carried out.

use crate::{coverage::Coverage, dice::Dice, trace::Trace};
use mesh::{
    FilerId,
    peers::{CallError, Channel, Member, Message, PeerStatus, Peers},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{power::Power, wants::Wants};

/// A session over which nothing comes for this long is given up, in milliseconds.
const IDLE_MS_MAX: u64 = 6_000;
/// A lost packet is sent again after this long, in milliseconds.
const AGAIN_MS: u64 = 250;

/// A call on its way to a filer, and where its answer goes.
pub struct Arrived {
    pub from: FilerId,
    pub channel: Channel,
    pub call: Message,
    pub answer: oneshot::Sender<Result<Message, String>>,
}

/// What a way between two filers is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub delay_ms: u64,
    /// Up to so much more, each time anew: calls overtake each other.
    pub jitter_ms: u64,
    pub lost_per_mille: u64,
    pub twice_per_mille: u64,
    /// Bytes a second; 0: no limit.
    pub bytes_per_s: u64,
}

impl Default for Way {
    fn default() -> Self {
        Self { delay_ms: 2, jitter_ms: 3, lost_per_mille: 0, twice_per_mille: 0, bytes_per_s: 0 }
    }
}

#[derive(Default)]
struct Wires {
    doors: BTreeMap<FilerId, mpsc::UnboundedSender<Arrived>>,
    ways: BTreeMap<(FilerId, FilerId), Wants<Way>>,
    /// Ways that carry nothing, by how many faults hold them cut.
    cut: BTreeMap<(FilerId, FilerId), u32>,
    /// Since when the two could not reach each other.
    apart_since: BTreeMap<(FilerId, FilerId), Instant>,
}

/// The network. A clone is another handle.
#[derive(Clone)]
pub struct Network {
    wires: Arc<Mutex<Wires>>,
    dice: Arc<Dice>,
    trace: Trace,
    coverage: Coverage,
}

fn pair(a: FilerId, b: FilerId) -> (FilerId, FilerId) {
    (a.min(b), a.max(b))
}

impl Wires {
    /// What a way is like: the worst of what faults make of it.
    fn way(&self, from: FilerId, to: FilerId) -> Way {
        let faults = self.ways.get(&(from, to)).into_iter().flat_map(Wants::all);
        faults.fold(Way::default(), |worst, way| Way {
            delay_ms: worst.delay_ms.max(way.delay_ms),
            jitter_ms: worst.jitter_ms.max(way.jitter_ms),
            lost_per_mille: worst.lost_per_mille.max(way.lost_per_mille),
            twice_per_mille: worst.twice_per_mille.max(way.twice_per_mille),
            bytes_per_s: match (worst.bytes_per_s, way.bytes_per_s) {
                (0, one) | (one, 0) => one,
                (one, other) => one.min(other),
            },
        })
    }

    fn carries(&self, from: FilerId, to: FilerId) -> bool {
        self.cut.get(&(from, to)).is_none_or(|faults| *faults == 0)
    }

    /// Whether a session between the two can stand.
    fn joins(&self, a: FilerId, b: FilerId) -> bool {
        let open = |filer: FilerId| self.doors.get(&filer).is_some_and(|door| !door.is_closed());
        self.carries(a, b) && self.carries(b, a) && open(a) && open(b)
    }

    /// Notes when two filers lost each other or found each other again.
    fn look(&mut self, a: FilerId, b: FilerId) {
        if self.joins(a, b) {
            self.apart_since.remove(&pair(a, b));
        } else {
            self.apart_since.entry(pair(a, b)).or_insert_with(Instant::now);
        }
    }
}

impl Network {
    /// A network that does nothing wrong.
    pub fn new(dice: Dice, trace: Trace, coverage: Coverage) -> Self {
        Self { wires: Arc::default(), dice: Arc::new(dice), trace, coverage }
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("no holder of the wires panics")
    }

    fn look_at_all(wires: &mut Wires, of: FilerId) {
        let others: BTreeSet<FilerId> = wires.doors.keys().copied().collect();
        others.into_iter().filter(|other| *other != of).for_each(|other| wires.look(of, other));
    }

    /// A filer's door, which ends its older one.
    pub fn open_door(&self, filer: FilerId) -> mpsc::UnboundedReceiver<Arrived> {
        let (door, arrived) = mpsc::unbounded_channel();
        let mut wires = self.wires();
        wires.doors.insert(filer, door);
        Self::look_at_all(&mut wires, filer);
        arrived
    }

    /// Nothing answers at a filer's door any more.
    pub fn close_door(&self, filer: FilerId) {
        let mut wires = self.wires();
        wires.doors.insert(filer, mpsc::unbounded_channel().0);
        Self::look_at_all(&mut wires, filer);
    }

    /// Cuts the way from one filer to another, or takes back one such cut.
    pub fn cut(&self, from: FilerId, to: FilerId, cut: bool) {
        let mut wires = self.wires();
        let faults = wires.cut.entry((from, to)).or_insert(0);
        *faults = if cut { *faults + 1 } else { faults.saturating_sub(1) };
        wires.look(from, to);
    }

    /// A fault makes a way such, or takes that back.
    pub fn set_way(&self, from: FilerId, to: FilerId, number: u64, way: Option<Way>) {
        self.wires().ways.entry((from, to)).or_default().set(number, way);
    }

    /// Mends everything.
    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.ways.clear();
        let all: Vec<FilerId> = wires.doors.keys().copied().collect();
        all.iter().for_each(|filer| Self::look_at_all(&mut wires, *filer));
    }

    /// The end of one filer, for one run of it.
    pub fn end(&self, me: FilerId, power: Power) -> End {
        End { me, power, network: self.clone(), members: Mutex::default() }
    }

    /// One way of a call, for as long as it takes; whether it arrives.
    async fn travel(&self, from: FilerId, to: FilerId, bytes: usize) -> bool {
        let (way, carries) = {
            let wires = self.wires();
            (wires.way(from, to), wires.carries(from, to))
        };
        let mut ms = way.delay_ms + self.dice.below(way.jitter_ms + 1);
        while self.dice.per_mille(way.lost_per_mille) && ms < 4 * IDLE_MS_MAX {
            ms += AGAIN_MS;
        }
        ms += (bytes as u64 * 1000).checked_div(way.bytes_per_s).unwrap_or(0);
        sleep(Duration::from_millis(ms)).await;
        carries && self.wires().carries(from, to)
    }
}

/// A filer's end of the network.
pub struct End {
    me: FilerId,
    power: Power,
    network: Network,
    members: Mutex<BTreeMap<FilerId, Member>>,
}

/// How long after a call a second one of it may arrive, in milliseconds.
const TWICE_MS_MAX: u64 = 2_000;

/// One call on its way, there and back: that of its sender or, behind it, a second one.
#[derive(Clone)]
struct Carrier {
    network: Network,
    me: FilerId,
    to: FilerId,
    channel: Channel,
}

impl Carrier {
    /// Hands a call to the other filer's door; gives where its answer comes.
    fn deliver(&self, call: Message) -> Option<oneshot::Receiver<Result<Message, String>>> {
        let (answer, answered) = oneshot::channel();
        let wires = self.network.wires();
        wires.doors.get(&self.to)?.send(Arrived { from: self.me, channel: self.channel, call, answer }).ok()?;
        Some(answered)
    }

    /// The session was given up: nothing came over it for long.
    async fn given_up(&self) -> Result<Message, CallError> {
        sleep(Duration::from_millis(IDLE_MS_MAX)).await;
        Err(CallError::Unreachable { to: self.to, why: "the session was given up".into() })
    }

    async fn carry(self, call: Message) -> Result<Message, CallError> {
        let Self { network, me, to, .. } = &self;
        if !network.travel(*me, *to, call.head.len() + call.body.len()).await {
            return self.given_up().await;
        }
        let way = network.wires().way(*me, *to);
        if network.dice.per_mille(way.twice_per_mille) {
            network.coverage.hit("duplicated calls");
            let (again, call, wait_ms) = (self.clone(), call.clone(), network.dice.below(TWICE_MS_MAX));
            tokio::spawn(async move {
                sleep(Duration::from_millis(wait_ms)).await;
                // Its answer goes nowhere.
                drop(again.deliver(call));
            });
        }
        let Some(answered) = self.deliver(call) else {
            return Err(CallError::Unreachable { to: *to, why: "nobody listens there".into() });
        };
        let Ok(answer) = answered.await else {
            return self.given_up().await;
        };
        let bytes = answer.as_ref().map_or(64, |message| message.head.len() + message.body.len());
        if !network.travel(*to, *me, bytes).await {
            return self.given_up().await;
        }
        answer.map_err(|why| CallError::Refused { to: *to, why })
    }
}

impl End {
    fn members(&self) -> MutexGuard<'_, BTreeMap<FilerId, Member>> {
        self.members.lock().expect("no holder of the members panics")
    }

    /// Sends a call in a task of its own: what was sent arrives, even when its sender has given it up or died.
    async fn carry(&self, to: FilerId, channel: Channel, call: Message) -> Result<Message, CallError> {
        let carrier = Carrier { network: self.network.clone(), me: self.me, to, channel };
        let (told, telling) = oneshot::channel();
        tokio::spawn(async move { drop(told.send(carrier.carry(call).await)) });
        let lost = |_| Err(CallError::Unreachable { to, why: "it was lost on its way".into() });
        telling.await.unwrap_or_else(lost)
    }
}

#[async_trait::async_trait]
impl Peers for End {
    async fn call(
        &self,
        to: FilerId,
        channel: Channel,
        call: Message,
        deadline: Duration,
    ) -> Result<Message, CallError> {
        self.power.needed().await;
        if !self.members().contains_key(&to) {
            return Err(CallError::Unknown(to));
        }
        let bytes = call.head.len() + call.body.len();
        self.network.trace.note(self.me, format_args!("calls {to} {channel:?} {bytes}"));
        let timed_out = CallError::TimedOut { to, after_ms: deadline.as_millis() as u64 };
        let result = timeout(deadline, self.carry(to, channel, call)).await.unwrap_or(Err(timed_out));
        self.power.needed().await;
        match &result {
            Ok(answer) => {
                let bytes = answer.head.len() + answer.body.len();
                self.network.trace.note(self.me, format_args!("hears {to} {channel:?} {bytes}"));
            }
            Err(error) => self.network.trace.note(self.me, format_args!("{error}")),
        }
        result
    }

    fn set_members(&self, members: BTreeMap<FilerId, Member>) {
        *self.members() = members;
    }

    fn status(&self) -> Vec<PeerStatus> {
        let members = self.members().clone();
        let wires = self.network.wires();
        let others = members.into_iter().filter(|(id, _)| *id != self.me);
        let status = others.map(|(id, Member { name, address })| {
            let apart_ms = wires.apart_since.get(&pair(self.me, id)).map(|since| since.elapsed().as_millis() as u64);
            PeerStatus {
                id,
                name,
                address,
                connected: wires.joins(self.me, id),
                heard_ms_ago: Some(apart_ms.unwrap_or(0)),
                rtt_us: None,
                last_error: None,
            }
        });
        status.collect()
    }
}
