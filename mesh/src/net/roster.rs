//! Who is reachable, and by which connection.
//!
//! For every peer there is room for two connections: the one that this filer dialled and the one that the peer
//! dialled. Mostly one of them stands. When both sides dial at the same moment both stand for a while, calls go over
//! the one that the filer with the lower id dialled, and the other is closed by its dialler once calls under way had
//! time to end.
//!
//! ```text
//! a new connection                             what stands already is
//! ---------------------------------------------------------------------------
//! of another start of the peer (it restarted)  replaced, all of it
//! dialled by the same side                     replaced
//! dialled by the peer, long after ours         replaced: a peer with a session does not dial, so it has lost it
//! otherwise                                    a twin: both stay for now
//! ```
//!
//! Owns: the table. Does no I/O and starts nothing.

use super::session::{PeerCertificate, Session};
use crate::{
    FilerId,
    peers::{Member, PeerStatus},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The table of peers.
pub struct Roster {
    me: FilerId,
    twin: Duration,
    peers: Mutex<BTreeMap<FilerId, Peer>>,
}

struct Peer {
    /// `None`: a filer of this CloudFS that is not in our list of members (yet).
    member: Option<Member>,
    ours: Option<Arc<Session>>,
    theirs: Option<Arc<Session>>,
    last_error: Option<String>,
    heard: Option<Instant>,
    /// Attempts at a session that failed since the last one stood.
    failures: u32,
    /// Whether the peer has said, since the last session stood, that this filer was removed.
    says_removed: bool,
    /// Raised whenever a session starts, ends, or fails to start.
    changed: watch::Sender<u64>,
    /// The dialler's bell, rung when a call waits for a session.
    wanted: Arc<Notify>,
}

impl Peer {
    #[expect(clippy::disallowed_methods, reason = "sessions are real: nothing here is simulated")]
    fn new(member: Option<Member>) -> Self {
        Self {
            member,
            ours: None,
            theirs: None,
            last_error: None,
            heard: None,
            failures: 0,
            says_removed: false,
            changed: watch::Sender::new(0),
            wanted: Arc::default(),
        }
    }

    fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ours.iter().chain(&self.theirs)
    }

    /// The session to use between `me` and `id`.
    fn session(&self, me: FilerId, id: FilerId) -> Option<&Arc<Session>> {
        let (first, second) = if me < id { (&self.ours, &self.theirs) } else { (&self.theirs, &self.ours) };
        [first, second].into_iter().flatten().find(|s| s.stands())
    }

    fn change(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

/// What became of a new session.
pub struct Admitted {
    /// To be ended now: it replaces them.
    pub replaced: Vec<Arc<Session>>,
    /// To be ended by this side when the time for twins is over and both still stand.
    pub retire: Option<Arc<Session>>,
}

/// What a new list of members asks for.
#[derive(Default)]
pub struct MembersChanged {
    /// Members that nobody dials yet, each with the bell of its dialler.
    pub added: Vec<(FilerId, Arc<Notify>)>,
    /// Sessions with filers that are not in the list.
    pub ended: Vec<Arc<Session>>,
}

/// A peer without a session, as a waiting caller sees it.
pub struct Waiting {
    pub changed: watch::Receiver<u64>,
    pub failures: u32,
    pub last_error: Option<String>,
}

/// What a dialler needs to know of its peer.
pub struct ToDial {
    pub member: Member,
    pub changed: watch::Receiver<u64>,
    pub failures: u32,
    pub up: bool,
}

impl Roster {
    pub fn new(me: FilerId, twin: Duration) -> Self {
        Self { me, twin, peers: Mutex::default() }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<FilerId, Peer>> {
        self.peers.lock().expect("no holder panics")
    }

    /// Replaces the list of members.
    pub fn set_members(&self, members: BTreeMap<FilerId, Member>) -> MembersChanged {
        let mut out = MembersChanged::default();
        let mut peers = self.peers();
        peers.retain(|id, peer| {
            let stays = members.contains_key(id);
            if !stays {
                out.ended.extend(peer.sessions().cloned());
                peer.change();
            }
            stays
        });
        for (id, member) in members {
            if id == self.me {
                continue;
            }
            let peer = peers.entry(id).or_insert_with(|| Peer::new(None));
            if peer.member.is_none() {
                out.added.push((id, peer.wanted.clone()));
            }
            if peer.member.as_ref().is_some_and(|old| old.address != member.address) {
                // The new address deserves a first attempt at once.
                peer.failures = 0;
                peer.wanted.notify_one();
            }
            peer.member = Some(member);
        }
        out
    }

    /// Puts a new session into the table. A dialler shows its bell; `None` if its peer left the list meanwhile.
    pub fn admit(&self, session: &Arc<Session>, wanted: Option<&Arc<Notify>>) -> Option<Admitted> {
        let id = session.peer.id;
        let mut peers = self.peers();
        if wanted.is_some_and(|bell| !peers.get(&id).is_some_and(|peer| Arc::ptr_eq(&peer.wanted, bell))) {
            return None;
        }
        let peer = peers.entry(id).or_insert_with(|| Peer::new(None));
        let mut replaced = Vec::new();
        let mut replace = |slot: &mut Option<Arc<Session>>, when: &dyn Fn(&Session) -> bool| {
            if let Some(old) = slot.take_if(|old| when(old)) {
                replaced.push(old);
            }
        };
        let restarted = |old: &Session| old.agreed.boot != session.agreed.boot || !old.stands();
        if session.dialled {
            replace(&mut peer.ours, &|_| true);
            replace(&mut peer.theirs, &restarted);
            peer.ours = Some(session.clone());
        } else {
            let lost = |old: &Session| restarted(old) || session.opened.duration_since(old.opened) > self.twin;
            replace(&mut peer.theirs, &|_| true);
            replace(&mut peer.ours, &lost);
            peer.theirs = Some(session.clone());
        }
        peer.failures = 0;
        peer.says_removed = false;
        peer.last_error = None;
        peer.change();
        let retire = match (&peer.ours, &peer.theirs) {
            (Some(ours), Some(_)) if self.me > id => Some(ours.clone()),
            _ => None,
        };
        Some(Admitted { replaced, retire })
    }

    /// Whether `session` and its twin both stand.
    pub fn has_twin(&self, session: &Arc<Session>) -> bool {
        let peers = self.peers();
        peers.get(&session.peer.id).is_some_and(|peer| {
            peer.sessions().any(|s| Arc::ptr_eq(s, session))
                && peer.sessions().any(|s| !Arc::ptr_eq(s, session) && s.stands())
        })
    }

    /// Takes an ended session out; `why` is what the status says until another stands.
    pub fn ended(&self, session: &Arc<Session>, why: String) {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&session.peer.id) else { return };
        let heard = session.heard();
        peer.heard = Some(peer.heard.map_or(heard, |before| before.max(heard)));
        let here = peer.sessions().any(|s| Arc::ptr_eq(s, session));
        peer.ours.take_if(|s| Arc::ptr_eq(s, session));
        peer.theirs.take_if(|s| Arc::ptr_eq(s, session));
        if here && peer.sessions().next().is_none() {
            peer.last_error = Some(why);
        }
        peer.change();
        if peer.member.is_none() && peer.sessions().next().is_none() {
            peers.remove(&session.peer.id);
        }
    }

    /// Notes a failed attempt at a session, by this side (`dialled`) or by the peer. True if it says something new: of a peer
    /// with which a session stands meanwhile it says nothing.
    pub fn failed(&self, id: FilerId, why: &str, dialled: bool) -> bool {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&id) else { return true };
        let new = peer.session(self.me, id).is_none() && peer.last_error.as_deref() != Some(why);
        if new {
            peer.last_error = Some(why.to_owned());
        }
        if dialled {
            peer.failures = peer.failures.saturating_add(1);
            peer.change();
        }
        new
    }

    /// Notes that a member refuses this filer as one that was removed.
    pub fn says_removed(&self, id: FilerId) {
        if let Some(peer) = self.peers().get_mut(&id) {
            peer.says_removed = true;
        }
    }

    /// The names of the members that do, and with which no session has stood since.
    pub fn removed_by(&self) -> Vec<String> {
        let peers = self.peers();
        let saying = peers.values().filter(|peer| peer.says_removed);
        saying.filter_map(|peer| peer.member.as_ref().map(|member| member.name.clone())).collect()
    }

    /// The session to call `id` by; or what a caller can wait for; or `None` where `id` is no member.
    pub fn session(&self, id: FilerId) -> Option<Result<Arc<Session>, Waiting>> {
        let peers = self.peers();
        let peer = peers.get(&id)?;
        if let Some(session) = peer.session(self.me, id) {
            return Some(Ok(session.clone()));
        }
        peer.member.as_ref()?;
        let (changed, failures) = (peer.changed.subscribe(), peer.failures);
        Some(Err(Waiting { changed, failures, last_error: peer.last_error.clone() }))
    }

    /// Tells the dialler of `id` that somebody waits.
    pub fn want(&self, id: FilerId) {
        if let Some(peer) = self.peers().get(&id) {
            peer.wanted.notify_one();
        }
    }

    /// What the dialler of `id` needs; `None` once `id` is no member, or was taken out and came back with a new bell
    /// and a new dialler.
    pub fn to_dial(&self, id: FilerId, wanted: &Arc<Notify>) -> Option<ToDial> {
        let peers = self.peers();
        let peer = peers.get(&id).filter(|peer| Arc::ptr_eq(&peer.wanted, wanted))?;
        Some(ToDial {
            member: peer.member.clone()?,
            changed: peer.changed.subscribe(),
            failures: peer.failures,
            up: peer.session(self.me, id).is_some(),
        })
    }

    /// The sessions of which this is true.
    pub fn sessions_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.peers().values().flat_map(|peer| peer.sessions().filter(|session| wanted(session)).cloned()).collect()
    }

    /// Peers with which a session stands.
    pub fn up(&self) -> u64 {
        self.peers().iter().filter(|(id, peer)| peer.session(self.me, **id).is_some()).count() as u64
    }

    /// By which certificate each peer stands with which there is a session.
    pub fn certificates(&self) -> BTreeMap<FilerId, PeerCertificate> {
        let peers = self.peers();
        let shown = |(id, peer): (&FilerId, &Peer)| Some((*id, peer.session(self.me, *id)?.certificate.clone()));
        peers.iter().filter_map(shown).collect()
    }

    /// Every member but this filer.
    pub fn status(&self) -> Vec<PeerStatus> {
        let peers = self.peers();
        let status = |(id, peer): (&FilerId, &Peer)| {
            let member = peer.member.as_ref()?;
            let session = peer.session(self.me, *id);
            let heard = peer.sessions().map(|s| s.heard()).chain(peer.heard).max();
            Some(PeerStatus {
                id: *id,
                name: member.name.clone(),
                address: member.address.clone(),
                connected: session.is_some(),
                heard_ms_ago: heard.map(|at| at.elapsed().as_millis() as u64),
                rtt_us: session.map(|s| s.conn.rtt().as_micros() as u64),
                last_error: if session.is_some() { None } else { peer.last_error.clone() },
            })
        };
        peers.iter().filter_map(status).collect()
    }
}
