//! From the operator's words to the limits of each part.

use crate::{
    actors::{mesh as mesh_actor, resync::SweepSettings},
    config::{self, Config, Failback, Reads, WithoutMajority},
    filer::{Settings, Steps},
    nfs, reading, vfs,
};
use mesh::consensus;
use storage::{
    backoff::{Backoff, turns},
    cache,
    clouds::CloudSettings,
    health,
    ids::CloudId,
    mirror, resync, staging,
};

/// The limits that a configuration asks for.
pub fn of(config: &Config) -> Settings {
    let attempts =
        Backoff { ms_min: config.health.attempt_backoff_ms_min, ms_max: config.health.attempt_backoff_ms_max };
    let probes = Backoff { ms_min: config.health.probe_backoff_ms_min, ms_max: config.health.probe_backoff_ms_max };
    let puts_in_flight_max = config.segments.puts_in_flight_max as usize;
    let heard_ms = 2 * config.mesh.transport.idle_ms_max;
    Settings {
        consensus: consensus::Settings {
            heartbeat_ms: config.mesh.heartbeat_ms,
            election_timeout_ms_min: config.mesh.election_ms_min,
            election_timeout_ms_max: config.mesh.election_ms_max,
            snapshot_bytes_max: config.mesh.snapshot_bytes_max,
            ..Default::default()
        },
        staging: staging::Settings {
            segment_bytes_max: config.segments.bytes_max,
            frame_bytes_max: config.segments.frame_bytes_max as usize,
            seal_after_ms: config.segments.seal_after_ms,
            seal_idle_ms: config.segments.seal_idle_ms,
            seal_idle_alone_ms: config.segments.seal_idle_alone_ms,
            seal_idle_bytes_min: config.segments.seal_idle_bytes_min,
            seal_ahead_bytes_min: config.segments.seal_ahead_bytes_min,
            bytes_max: config.staging.bytes_max,
            ..Default::default()
        },
        cache: cache::Settings {
            disk_bytes_max: config.cache.disk_bytes_max,
            memory_bytes_max: config.cache.memory_bytes_max,
        },
        health: health::Settings {
            failures_to_trip: config.health.failures_to_trip,
            failures_to_warn: config.health.failures_to_warn,
            works_again_ms: config.health.works_again_after_ms,
            slow_ms: config.health.brown_out_latency_ms,
            bytes_per_s_min: config.health.brown_out_bytes_per_s,
            slow_for_ms: config.health.brown_out_after_ms,
            probe_backoff: probes,
            trip_policy: config.health.trip_policy,
            failback_auto: config.health.failback == Failback::Auto,
            ..Default::default()
        },
        turns: turns::Settings { attempt_backoff: attempts, ..Default::default() },
        mirror: mirror::Settings {
            puts_in_flight_max,
            attempt_backoff: attempts,
            put_arrives_ms_max: put_ms_max(config),
            ..Default::default()
        },
        resync: resync::Settings {
            rows_in_flight_max: puts_in_flight_max,
            attempt_backoff: attempts,
            ..Default::default()
        },
        sweep: SweepSettings { grace_ms: config.segments.delete_grace_ms, ..Default::default() },
        reading: reading::Settings {
            attempt_backoff: attempts,
            read_ahead_bytes: config.cache.read_ahead_bytes,
            frame_bytes_in_flight_max: config.cache.frame_bytes_in_flight_max,
            ..Default::default()
        },
        vfs: vfs::Settings {
            room_ms_max: config.staging.wait_ms_max,
            without_majority: match config.consistency.without_majority {
                WithoutMajority::Wait => vfs::WithoutMajority::Wait,
                WithoutMajority::ReadOnly => vfs::WithoutMajority::ReadOnly,
            },
            stale_ms_max: match config.consistency.reads {
                Reads::Strict => None,
                Reads::Stale => Some(config.consistency.stale_within_ms),
            },
            ..Default::default()
        },
        mesh: mesh_actor::Settings { live_ms: heard_ms, ..Default::default() },
        operations: Default::default(),
        steps: Steps::default(),
    }
}

/// How a cloud is reached that a configuration names.
pub fn of_cloud(config: &Config, cloud: CloudId) -> CloudSettings {
    let mut settings = config.clouds.entry(cloud).settings.clone();
    settings.limits_mut().put_ms_max = put_ms_max(config);
    settings
}

/// Longest time for a put, in milliseconds. A delete comes when the grace period has passed, and its copies were begun in the
/// first half of it: no put may take longer than the other half.
fn put_ms_max(config: &Config) -> u64 {
    config.segments.delete_grace_ms / 2
}

/// The limits of the NFS door that a configuration asks for.
pub fn of_nfs(config: &config::NfsSettings) -> nfs::NfsSettings {
    nfs::NfsSettings {
        connections_max: config.connections_max,
        extra_listen: config.portmap_listen.into_iter().collect(),
        read_bytes_in_flight_max: config.read_bytes_in_flight_max,
        write_bytes_in_flight_max: config.write_bytes_in_flight_max,
        metadata_bytes_in_flight_max: config.metadata_bytes_in_flight_max,
        connection_bytes_in_flight_max: config.connection_bytes_in_flight_max,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many puts share the link: what is begun in the first half of the grace period ends before the delete.
    #[test]
    fn no_put_takes_longer_than_half_of_the_grace_period() {
        let mut config = Config::first("ams", std::path::Path::new("/var/lib/filer"));
        config.segments.delete_grace_ms = 300_000;
        for cloud in CloudId::BOTH {
            assert_eq!(of_cloud(&config, cloud).limits().put_ms_max, 150_000);
        }
    }

    #[test]
    fn what_is_told_of_a_failing_cloud_is_as_the_settings_say() {
        let mut config = Config::first("ams", std::path::Path::new("/var/lib/filer"));
        let told = |config: &Config| {
            let health = of(config).health;
            (health.failures_to_warn, health.works_again_ms)
        };
        assert_eq!(told(&config), (8, 300_000));
        (config.health.failures_to_warn, config.health.works_again_after_ms) = (3, 7);
        assert_eq!(told(&config), (3, 7));
    }

    /// A resync is no exception: a cloud that fails again in the middle of its resync trips as soon as any other.
    #[test]
    fn every_attempt_at_a_piece_waits_as_the_settings_say() {
        let mut config = Config::first("ams", std::path::Path::new("/var/lib/filer"));
        (config.health.attempt_backoff_ms_min, config.health.attempt_backoff_ms_max) = (3, 77);
        let settings = of(&config);
        let asked =
            [settings.mirror.attempt_backoff, settings.resync.attempt_backoff, settings.reading.attempt_backoff];
        assert_eq!(asked, [Backoff { ms_min: 3, ms_max: 77 }; 3]);
    }
}
