//! `[health]`: when a cloud has failed, and when it is back.

use super::{DAY, GIB, HOUR, KIB, MINUTE, SECOND};
use crate::config::{
    form::Form,
    kinds::{Bytes, Choice, Millis, count},
};
use serde::{Deserialize, Serialize};
use storage::cloudfs::TripPolicy;

/// How a cloud that is healthy again gets its role back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// As soon as it is healthy.
    #[default]
    Auto,
    /// When the operator says so.
    Manual,
}

/// `[health]`: when a cloud has failed, and when it is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSettings {
    pub failures_to_trip: u32,
    pub failures_to_warn: u32,
    pub works_again_after_ms: u64,
    pub attempt_backoff_ms_min: u64,
    pub attempt_backoff_ms_max: u64,
    pub brown_out_latency_ms: u64,
    pub brown_out_bytes_per_s: u64,
    pub brown_out_after_ms: u64,
    pub probe_backoff_ms_min: u64,
    pub probe_backoff_ms_max: u64,
    pub start_probe_every_ms: u64,
    pub trip_policy: TripPolicy,
    pub failback: Failback,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failures_to_trip: 160,
            failures_to_warn: 8,
            works_again_after_ms: 5 * MINUTE,
            attempt_backoff_ms_min: 10,
            attempt_backoff_ms_max: SECOND,
            brown_out_latency_ms: 10 * SECOND,
            brown_out_bytes_per_s: 256 * KIB,
            brown_out_after_ms: MINUTE,
            probe_backoff_ms_min: SECOND,
            probe_backoff_ms_max: 30 * SECOND,
            start_probe_every_ms: 10 * SECOND,
            trip_policy: TripPolicy::Any,
            failback: Failback::Auto,
        }
    }
}

impl HealthSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "failures_to_trip",
            "Consecutive failures on one piece of data after which a cloud has failed.",
            count(1..=1_000_000),
            &mut self.failures_to_trip,
        );
        form.set(
            "failures_to_warn",
            "Consecutive failures on one piece of data after which the log warns that a cloud is failing, before it has failed.",
            count(1..=1_000_000),
            &mut self.failures_to_warn,
        );
        form.set(
            "works_again_after",
            "The log says that it works again when none has failed so often for this long: what fails now and then is told once.",
            Millis(0..=DAY),
            &mut self.works_again_after_ms,
        );
        form.set(
            "attempt_backoff_min",
            "Pause before another attempt on a piece; it doubles with each failure, with jitter, up to attempt_backoff_max.",
            Millis(1..=MINUTE),
            &mut self.attempt_backoff_ms_min,
        );
        form.set("attempt_backoff_max", "", Millis(1..=10 * MINUTE), &mut self.attempt_backoff_ms_max);
        form.set(
            "brown_out_latency",
            "A cloud whose answers take longer than this, and than their bytes need, for brown_out_after, has failed too.",
            Millis(10..=10 * MINUTE),
            &mut self.brown_out_latency_ms,
        );
        form.set(
            "brown_out_bytes_per_s",
            "How long bytes need is reckoned at this many per second: the least throughput to a cloud that counts as healthy.",
            Bytes(KIB..=GIB),
            &mut self.brown_out_bytes_per_s,
        );
        form.set("brown_out_after", "", Millis(100..=DAY), &mut self.brown_out_after_ms);
        form.set(
            "probe_backoff_min",
            "A failed cloud is probed: the pause doubles from this to probe_backoff_max.",
            Millis(10..=HOUR),
            &mut self.probe_backoff_ms_min,
        );
        form.set("probe_backoff_max", "", Millis(10..=DAY), &mut self.probe_backoff_ms_max);
        form.set(
            "start_probe_every",
            "From the start on each cloud is probed this often, until it has taken and given data once.",
            Millis(10..=DAY),
            &mut self.start_probe_every_ms,
        );
        form.set(
            "trip_policy",
            "Whose finding carries: \"any\" (one filer's moves the CloudFS) or \"majority\" (most filers must see it too).",
            Choice(&[("any", TripPolicy::Any), ("majority", TripPolicy::Majority)]),
            &mut self.trip_policy,
        );
        form.set(
            "failback",
            "When the primary cloud is healthy again: \"auto\" makes it active at once, \"manual\" waits for filer cloud failback.",
            Choice(&[("auto", Failback::Auto), ("manual", Failback::Manual)]),
            &mut self.failback,
        );
    }
}
