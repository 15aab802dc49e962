//! Whether each cloud takes and gives data at all: tried from the start on, until it does.
//!
//! Wrong credentials, a bucket that is not there, an address that leads nowhere are said plainly at the start, and shown as long
//! as they last, though nobody writes. Whether a cloud has failed is judged as ever (`storage::health`).

use super::Filer;
use crate::config::Config;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use storage::{cloud::PROBE, ids::CloudId};

/// Why each cloud has not taken and given data since the start, as long as it has not.
#[derive(Default)]
pub(super) struct Greetings(Mutex<[Option<String>; 2]>);

impl Greetings {
    fn whys(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        self.0.lock().expect("no holder of the greetings panics")
    }

    pub fn why(&self, cloud: CloudId) -> Option<String> {
        self.whys()[cloud.index()].clone()
    }
}

/// Tries each cloud until it takes and gives data.
pub(super) fn greet_clouds(greetings: &Arc<Greetings>, filer: &Filer, config: &Config) {
    let again = Duration::from_millis(config.health.start_probe_every_ms);
    for cloud in CloudId::BOTH {
        let (entry, client) = (config.clouds.entry(cloud), filer.world.clouds[cloud.index()].clone());
        let (name, place, me, greetings) =
            (entry.name.clone(), entry.settings.place(), filer.who.me, greetings.clone());
        tokio::spawn(async move {
            let key = format!("probes/{:016x}", me.0);
            while let Err(error) = client.probe(&key, bytes::Bytes::from_static(PROBE)).await {
                if greetings.whys()[cloud.index()].replace(error.to_string()).is_none() {
                    tracing::error!(
                        cloud = %name, %place, %error,
                        "the cloud does not take and give data: check its section of the configuration; writes stay in staging until it does, or until it is tripped"
                    );
                }
                tokio::time::sleep(again).await;
            }
            greetings.whys()[cloud.index()] = None;
            tracing::info!(cloud = %name, %place, "the cloud takes and gives data");
        });
    }
}
