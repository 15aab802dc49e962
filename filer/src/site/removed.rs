//! Whether this filer was removed from the CloudFS, as far as it can know, and what its operator is told.
//!
//! ```text
//! its own log says so                                           it was
//! peers refuse it as a removed one, and no leader is known      it was, as they say
//! peers say so, and a leader counts this filer in               nothing: they are wrong, or not up to date
//! ```
//!
//! It is told, in the log, the status and `/healthz`, and nothing else comes of it: what lies here stays, and the filer
//! goes on trying. So a peer that lies does no harm, and a filer that is let in after all simply goes on.

use mesh::{
    FilerId,
    consensus::{Consensus, ConsensusStatus},
    net::QuicMesh,
};
use std::{sync::Arc, time::Duration};

/// That this filer was removed, by whose word, and what is to be done; `None` where nobody says so. `removed_by`: the
/// names of the peers that refuse it for that.
pub(super) fn words(me: FilerId, status: &ConsensusStatus, removed_by: &[String]) -> Option<String> {
    let by = if status.removed.contains(&me) {
        "its own log".to_string()
    } else if status.leader.is_none() && !removed_by.is_empty() {
        format!("peers that refuse it ({})", removed_by.join(", "))
    } else {
        return None;
    };
    Some(format!(
        "this filer was removed from the CloudFS, by the word of {by}; it does not come back under this name. Nothing here \
         was deleted. Have its clients mount another site, and stop it; to serve here again, make a site of another name \
         in another directory: filer init NAME --dir DIR --join"
    ))
}

/// Says once, in the log, that this filer was removed; looks every `look_ms`.
pub(super) async fn watch(me: FilerId, consensus: Consensus, mesh: Arc<QuicMesh>, look_ms: u64) {
    let mut told = false;
    loop {
        let words = words(me, &consensus.status(), &mesh.removed_by());
        if let Some(words) = words.as_ref().filter(|_| !told) {
            tracing::error!("{words}");
        }
        told = words.is_some();
        tokio::time::sleep(Duration::from_millis(look_ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_filer_knows_it_by_its_log_or_by_its_peers_where_no_leader_contradicts() {
        let (me, other) = (FilerId(7), FilerId(8));
        let status = |removed: &[FilerId], leader| ConsensusStatus {
            removed: removed.iter().copied().collect(),
            leader,
            ..ConsensusStatus::default()
        };
        let said = ["ams".to_string(), "fra".to_string()];
        let (nobody, peers) = (&said[..0], &said[..]);
        assert_eq!(words(me, &status(&[], Some(other)), nobody), None);
        assert_eq!(words(me, &status(&[], None), nobody), None, "without a majority it is no less a member");
        assert_eq!(words(me, &status(&[other], None), nobody), None);
        assert_eq!(words(me, &status(&[], Some(other)), peers), None, "a leader counts it in");
        for (status, removed_by, by) in [
            (status(&[me], Some(other)), nobody, "by the word of its own log"),
            (status(&[], None), peers, "by the word of peers that refuse it (ams, fra)"),
        ] {
            let words = words(me, &status, removed_by).expect("it was removed");
            assert!(words.contains(by) && words.contains("filer init NAME --dir DIR --join"), "{words}");
        }
    }
}
