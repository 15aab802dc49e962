//! Peers so far away that their answers may come too late, and what the operator is told.
//!
//! Filers agree by answers that must come within `mesh.election_min`. A round trip that takes more than half of it leaves no
//! room for a lost packet: it is told in the log, once until the peer is near again, and by `filer peers`.

use mesh::{
    FilerId,
    net::QuicMesh,
    peers::{PeerStatus, Peers},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How often round trips are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Whether a round trip takes too long for that time of elections.
pub(super) fn is_far(rtt_us: Option<u64>, election_ms_min: u64) -> bool {
    rtt_us.is_some_and(|us| us > election_ms_min * 1_000 / 2)
}

/// Tells it in the log.
pub(super) async fn watch(mesh: Arc<QuicMesh>, election_ms_min: u64) {
    let mut told = BTreeSet::new();
    loop {
        for PeerStatus { name, rtt_us, .. } in news(mesh.status(), election_ms_min, &mut told) {
            let round_trip_ms = rtt_us.unwrap_or_default() / 1_000;
            tracing::warn!(
                peer = name,
                round_trip_ms,
                election_ms_min,
                "an answer of this peer takes more than half of mesh.election_min, within which it must come: raise it and \
                 mesh.election_max at all filers"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Those that are far and were near, or away, at the last look.
fn news(peers: Vec<PeerStatus>, election_ms_min: u64, told: &mut BTreeSet<FilerId>) -> Vec<PeerStatus> {
    let is_news = |peer: &PeerStatus| {
        // One that was told of is near again when it is clearly so.
        let limit_ms = if told.contains(&peer.id) { election_ms_min * 3 / 4 } else { election_ms_min };
        if peer.connected && is_far(peer.rtt_us, limit_ms) {
            return told.insert(peer.id);
        }
        told.remove(&peer.id);
        false
    };
    peers.into_iter().filter(is_news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_peer_is_told_of_once_until_it_is_near_again() {
        let peer = |id: u64, rtt_ms: Option<u64>| PeerStatus {
            id: FilerId(id),
            name: format!("site{id}"),
            address: format!("10.0.0.{id}:7400"),
            connected: true,
            heard_ms_ago: Some(1),
            rtt_us: rtt_ms.map(|ms| ms * 1_000),
            last_error: None,
        };
        let mut told = BTreeSet::new();
        let mut names = |peers: &[PeerStatus]| -> Vec<String> {
            news(peers.to_vec(), 1_000, &mut told).into_iter().map(|peer| peer.name).collect()
        };
        assert_eq!(names(&[peer(2, Some(500)), peer(3, Some(501)), peer(4, None)]), ["site3"]);
        assert_eq!(names(&[peer(2, Some(800)), peer(3, Some(900))]), ["site2"]);
        assert!(names(&[peer(2, Some(490)), peer(3, Some(900))]).is_empty());
        assert!(names(&[peer(2, Some(800)), peer(3, Some(900))]).is_empty());
        let away = PeerStatus { connected: false, ..peer(2, Some(800)) };
        assert!(names(&[away, peer(3, Some(20))]).is_empty());
        assert_eq!(names(&[peer(2, Some(800)), peer(3, Some(900))]), ["site2", "site3"]);
    }
}
