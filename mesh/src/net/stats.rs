//! What the mesh counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Certificates that this filer refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RefusedCertificates {
    /// Signed by nobody known: most often a filer of another CloudFS.
    pub foreign: u64,
    /// Past its end.
    pub expired: u64,
    /// Before its start: one of the two clocks is wrong.
    pub not_yet_valid: u64,
    /// Of a filer that was removed from the CloudFS.
    pub removed: u64,
    /// On the list of revoked certificates.
    pub revoked: u64,
    /// Of another filer than the one that was dialled.
    pub other_filer: u64,
    /// Not a filer's certificate, or not a certificate at all.
    pub malformed: u64,
    /// None was shown.
    pub missing: u64,
}

impl RefusedCertificates {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { foreign, expired, not_yet_valid, removed, revoked, other_filer, malformed, missing } = self;
        foreign + expired + not_yet_valid + removed + revoked + other_filer + malformed + missing
    }
}

/// What happened since the start, and what stands now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MeshStats {
    /// Peers with which a session stands now.
    pub sessions: u64,
    /// Sessions opened since the start, by either side.
    pub sessions_opened: u64,
    /// Attempts to dial that failed.
    pub dials_failed: u64,
    /// Certificates refused, by reason.
    pub refused: RefusedCertificates,
    /// Peers refused for what they said in their greeting (protocol version, CloudFS, name).
    pub refused_greetings: u64,
    /// Connections turned away because too many were being opened at once.
    pub refused_busy: u64,
    /// Frames that broke the format or its limits; each ended its connection.
    pub malformed_frames: u64,
    /// Calls sent.
    pub calls: u64,
    /// Calls sent that got no answer, or a refusal.
    pub calls_failed: u64,
    /// Calls of peers that were answered, refusals included.
    pub calls_served: u64,
    /// Calls of peers that were dropped: deadline, caller gone.
    pub calls_dropped: u64,
    /// Bytes of heads and bodies received.
    pub bytes_in: u64,
    /// Bytes of heads and bodies sent.
    pub bytes_out: u64,
}

/// One count.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    Foreign,
    Expired,
    NotYetValid,
    Removed,
    Revoked,
    OtherFiler,
    Malformed,
    Missing,
}

/// The counts behind [`MeshStats`].
#[derive(Default)]
pub(super) struct Counts {
    refused: [Count; 8],
    pub sessions_opened: Count,
    pub dials_failed: Count,
    pub refused_greetings: Count,
    pub refused_busy: Count,
    pub malformed_frames: Count,
    pub calls: Count,
    pub calls_failed: Count,
    pub calls_served: Count,
    pub calls_dropped: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
}

impl Counts {
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].one();
    }

    fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].get()
    }

    pub fn snapshot(&self, sessions: u64) -> MeshStats {
        MeshStats {
            sessions,
            sessions_opened: self.sessions_opened.get(),
            dials_failed: self.dials_failed.get(),
            refused: RefusedCertificates {
                foreign: self.refused(Refusal::Foreign),
                expired: self.refused(Refusal::Expired),
                not_yet_valid: self.refused(Refusal::NotYetValid),
                removed: self.refused(Refusal::Removed),
                revoked: self.refused(Refusal::Revoked),
                other_filer: self.refused(Refusal::OtherFiler),
                malformed: self.refused(Refusal::Malformed),
                missing: self.refused(Refusal::Missing),
            },
            refused_greetings: self.refused_greetings.get(),
            refused_busy: self.refused_busy.get(),
            malformed_frames: self.malformed_frames.get(),
            calls: self.calls.get(),
            calls_failed: self.calls_failed.get(),
            calls_served: self.calls_served.get(),
            calls_dropped: self.calls_dropped.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}
