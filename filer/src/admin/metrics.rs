//! The status as numbers for Prometheus.
//!
//! The page is made afresh from the status at each call, so that it can never say anything else than the status does.

use super::status::{Role, Status};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;
use storage::cloudfs::CloudState;

/// The type of the page.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A number beside those of the status: its name (units last, without the prefix `filer_`), its meaning, its value.
pub type Extra = (&'static str, &'static str, f64);

type Number = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCloud {
    cloud: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCloudState {
    cloud: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Info {
    filer: String,
    id: String,
    cloudfs: String,
    version: String,
}

/// The page of `/metrics`, in the OpenMetrics text format.
pub fn metrics_text(status: &Status, extra: &[Extra]) -> String {
    let mut page = Page { registry: Registry::with_prefix("filer") };
    let info = Family::<Info, Number>::default();
    let filer = &status.filer;
    let labels = Info {
        filer: filer.name.clone(),
        id: filer.id.clone(),
        cloudfs: status.cloudfs.clone(),
        version: status.version.clone(),
    };
    info.get_or_create(&labels).set(1.0);
    page.registry.register("build", "Who this filer is; always 1", info);
    page.number("up_seconds", "Since the filer started", seconds(status.up_ms));
    page.number("epoch", "Number of the agreement on the clouds' roles", status.epoch as f64);
    page.number("absorbs_failure", "1 if one more cloud may fail without harm", flag(status.absorbs_failure));
    page.number("has_majority", "1 if the replicated log has a majority", flag(status.has_majority));
    let help = "1 if this filer was removed from the CloudFS, as far as it has heard";
    page.number("removed", help, flag(status.removed.is_some()));
    page.number("term", "Term of the replicated log", status.term as f64);
    page.number("applied", "Last operation applied here", status.applied as f64);
    let left = seconds(status.certificate.left_ms);
    page.number("certificate_left_seconds", "How long this filer's certificate is still valid", left);
    let soon = flag(status.certificate.ends_soon);
    page.number("certificate_ends_soon", "1 if this filer's certificate must be renewed soon", soon);
    page.number("revoked_certificates", "Certificates that every filer refuses", status.revoked.len() as f64);
    page.number("dead_segments", "Segments on record that nothing refers to", status.dead.segments as f64);
    let help = "Those of them whose deletes fail, as the leader knows";
    page.number("undeleted_segments", help, status.dead.undeleted as f64);
    page.number("staging_bytes", "Data that is not yet in the clouds", status.staging.bytes as f64);
    page.number("staging_bytes_max", "Room for such data", status.staging.bytes_max as f64);
    page.number("staging_segments", "Segments that are not yet in the clouds", status.staging.segments as f64);
    let oldest = seconds(status.staging.oldest_unprotected_ms.unwrap_or(0));
    page.number("oldest_unprotected_seconds", "Age of the oldest byte that is at this filer alone", oldest);
    let serving = &status.serving;
    page.number("reads_may_be_old", "1 if clients are served without a majority", flag(serving.may_be_old));
    page.total("old_answers", "Looks at names and attributes answered without a majority", serving.old_answers);
    page.number(
        "undecided_changes",
        "Changes of clients that may have been made or not",
        serving.undecided_changes as f64,
    );
    let oldest = seconds(serving.oldest_undecided_ms.unwrap_or(0));
    page.number("oldest_undecided_seconds", "How long the oldest of them has been under way", oldest);
    page.number("cache_memory_bytes", "Data of the clouds held in memory", status.cache.memory_bytes as f64);
    page.number("cache_disk_bytes", "Data of the clouds held on disk", status.cache.disk_bytes as f64);
    page.total("cache_hits", "Reads answered from the cache", status.cache.hits);
    page.total("cache_misses", "Reads that needed a cloud or a peer", status.cache.misses);
    page.total(
        "fallback_reads",
        "Reads from the standby cloud after failures of the active",
        status.cache.fallback_reads,
    );
    clouds(&mut page.registry, status);
    peers(&mut page.registry, status);
    for (name, help, value) in extra {
        page.number(name, help, *value);
    }
    let mut text = String::new();
    encode(&mut text, &page.registry).expect("writing text to memory cannot fail");
    text
}

fn clouds(registry: &mut Registry, status: &Status) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&super::status::Cloud) -> f64| {
        let family = Family::<OfCloud, Number>::default();
        for cloud in &status.clouds {
            family.get_or_create(&OfCloud { cloud: cloud.name.clone() }).set(value(cloud));
        }
        registry.register(name, help, family);
    };
    each("cloud_active", "1 for the active cloud", &|cloud| flag(cloud.role == Role::Active));
    each("cloud_preferred", "1 for the cloud configured as primary", &|cloud| flag(cloud.name == status.preferred));
    each("cloud_state_seconds", "How long the cloud has been in its state", &|cloud| seconds(cloud.since_ms_ago));
    each("cloud_held_by_operator", "1 for a cloud that an operator made active in the primary's place", &|cloud| {
        flag(cloud.held_by_operator)
    });
    each("cloud_failing_seconds", "How long the piece of data that failed most has failed in a row", &|cloud| {
        cloud.failing.map_or(0.0, |failing| seconds(failing.since_ms_ago))
    });
    each("cloud_failures_now", "Most consecutive failures on one piece of data", &|cloud| cloud.failures_now.into());
    each("cloud_missed_puts", "Puts in the missed-write log", &|cloud| cloud.missed_puts as f64);
    each("cloud_missed_deletes", "Deletes in the missed-write log", &|cloud| cloud.missed_deletes as f64);
    each("cloud_oldest_miss_seconds", "Age of the oldest row of the missed-write log", &|cloud| {
        seconds(cloud.oldest_miss_ms.unwrap_or(0))
    });
    each(
        "cloud_oldest_unprotected_seconds",
        "Age of this filer's oldest byte that the cloud does not hold and that is not on record as missed",
        &|cloud| seconds(cloud.oldest_unprotected_ms.unwrap_or(0)),
    );
    each("cloud_resync_rows_left", "Rows that a resync has still to copy", &|cloud| {
        cloud.resync.map_or(0.0, |resync| resync.rows_left as f64)
    });
    let states = Family::<OfCloudState, Number>::default();
    let failures = Family::<OfCloud, Counter>::default();
    for cloud in &status.clouds {
        for (state, word) in
            [(CloudState::Healthy, "healthy"), (CloudState::Failed, "failed"), (CloudState::Resyncing, "resyncing")]
        {
            let labels = OfCloudState { cloud: cloud.name.clone(), state: word };
            states.get_or_create(&labels).set(flag(cloud.state == state));
        }
        failures.get_or_create(&OfCloud { cloud: cloud.name.clone() }).inc_by(cloud.failures_total);
    }
    registry.register("cloud_state", "1 for the state that the cloud is in", states);
    registry.register("cloud_failures", "Failed attempts at the cloud, since this filer started", failures);
}

fn peers(registry: &mut Registry, status: &Status) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&super::status::Peer) -> Option<f64>| {
        let family = Family::<OfPeer, Number>::default();
        for peer in status.peers.iter().filter(|peer| !peer.this) {
            if let Some(value) = value(peer) {
                family.get_or_create(&OfPeer { peer: peer.name.clone() }).set(value);
            }
        }
        registry.register(name, help, family);
    };
    each("peer_connected", "1 if a session with the peer stands", &|peer| Some(flag(peer.connected)));
    each("peer_heard_seconds", "Since anything was heard from the peer", &|peer| peer.heard_ms_ago.map(seconds));
    each("peer_epoch", "The epoch that the peer has seen", &|peer| peer.epoch.map(|epoch| epoch as f64));
    each("peer_rtt_seconds", "Round-trip time to the peer", &|peer| peer.rtt_us.map(|us| us as f64 / 1e6));
    each("peer_staged_bytes", "Data at the peer that is not yet in the clouds, by its last word", &|peer| {
        peer.staged_bytes.map(|bytes| bytes as f64)
    });
    // A peer that has said how much it holds, and no age, holds nothing that is in danger.
    each(
        "peer_oldest_unprotected_seconds",
        "Age of the oldest byte that is at the peer alone, by its last word; it goes on while the peer is away",
        &|peer| peer.staged_bytes.map(|_| seconds(peer.oldest_unprotected_ms.unwrap_or(0))),
    );
}

struct Page {
    registry: Registry,
}

impl Page {
    fn number(&mut self, name: &str, help: &str, value: f64) {
        let number = Number::default();
        number.set(value);
        self.registry.register(name, help, number);
    }

    fn total(&mut self, name: &str, help: &str, value: u64) {
        let total: Counter = Counter::default();
        total.inc_by(value);
        self.registry.register(name, help, total);
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
