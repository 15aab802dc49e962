//! The network between filers of one process: a call is carried out where the other filer's tasks live.

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

/// One way of a call.
const LATENCY: Duration = Duration::from_millis(1);

/// A call on its way to a filer, and where its answer goes.
pub struct Arrived {
    pub from: FilerId,
    pub channel: Channel,
    pub call: Message,
    pub answer: oneshot::Sender<Result<Message, String>>,
}

/// The network. A clone is another handle.
#[derive(Clone, Default)]
pub struct Network {
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    doors: BTreeMap<FilerId, mpsc::UnboundedSender<Arrived>>,
    /// Links that carry nothing, both ways.
    cut: BTreeSet<(FilerId, FilerId)>,
    /// Since when the two could not reach each other.
    apart_since: BTreeMap<(FilerId, FilerId), Instant>,
    /// Calls from these are carried out, but their answers are lost.
    deaf: BTreeSet<FilerId>,
}

fn link(a: FilerId, b: FilerId) -> (FilerId, FilerId) {
    (a.min(b), a.max(b))
}

impl Wires {
    fn joins(&self, a: FilerId, b: FilerId) -> bool {
        !self.cut.contains(&link(a, b)) && self.doors.get(&b).is_some_and(|door| !door.is_closed())
    }
}

impl Network {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("no test holds it")
    }

    /// A filer's door, which ends its older one.
    pub fn open_door(&self, filer: FilerId) -> mpsc::UnboundedReceiver<Arrived> {
        let (door, arrived) = mpsc::unbounded_channel();
        self.wires().doors.insert(filer, door);
        arrived
    }

    /// Cuts the link between two filers.
    pub fn cut(&self, a: FilerId, b: FilerId) {
        self.wires().cut.insert(link(a, b));
    }

    /// Loses the answers of this filer's calls.
    pub fn deafen(&self, filer: FilerId) {
        self.wires().deaf.insert(filer);
    }

    /// Mends every link.
    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.deaf.clear();
    }

    /// The end of one filer.
    pub fn end(&self, me: FilerId) -> End {
        End { me, network: self.clone(), members: Mutex::default() }
    }
}

/// A filer's end of the network.
pub struct End {
    me: FilerId,
    network: Network,
    members: Mutex<BTreeMap<FilerId, Member>>,
}

impl End {
    fn members(&self) -> MutexGuard<'_, BTreeMap<FilerId, Member>> {
        self.members.lock().expect("no test holds it")
    }

    /// Sends a call where it can be sent; gives where its answer comes.
    fn send(&self, to: FilerId, channel: Channel, call: Message) -> Option<oneshot::Receiver<Result<Message, String>>> {
        let wires = self.network.wires();
        let (answer, answered) = oneshot::channel();
        let door = wires.doors.get(&to).filter(|_| wires.joins(self.me, to))?;
        door.send(Arrived { from: self.me, channel, call, answer }).ok()?;
        Some(answered)
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
        if !self.members().contains_key(&to) {
            return Err(CallError::Unknown(to));
        }
        let unreachable = || CallError::Unreachable { to, why: "no session".into() };
        let carried = async {
            sleep(LATENCY).await;
            let answer = self.send(to, channel, call).ok_or_else(unreachable)?.await.map_err(|_| unreachable())?;
            sleep(LATENCY).await;
            let lost = {
                let wires = self.network.wires();
                wires.deaf.contains(&self.me) || !wires.joins(self.me, to)
            };
            if lost {
                sleep(deadline).await;
            }
            answer.map_err(|why| CallError::Refused { to, why })
        };
        let timed_out = CallError::TimedOut { to, after_ms: deadline.as_millis() as u64 };
        timeout(deadline, carried).await.unwrap_or(Err(timed_out))
    }

    fn set_members(&self, members: BTreeMap<FilerId, Member>) {
        *self.members() = members;
    }

    fn status(&self) -> Vec<PeerStatus> {
        let members = self.members().clone();
        let mut wires = self.network.wires();
        let others = members.into_iter().filter(|(id, _)| *id != self.me);
        let status = others.map(|(id, Member { name, address })| {
            let (connected, link) = (wires.joins(self.me, id), link(self.me, id));
            if connected {
                wires.apart_since.remove(&link);
            } else {
                wires.apart_since.entry(link).or_insert_with(Instant::now);
            }
            let apart_ms = wires.apart_since.get(&link).map_or(0, |since| since.elapsed().as_millis() as u64);
            PeerStatus { id, name, address, connected, heard_ms_ago: Some(apart_ms), rtt_us: None, last_error: None }
        });
        status.collect()
    }
}
