//! Two test clouds, `east` and `west`, as processes of their own.

use super::CloudPlace;
use crate::{
    cloud::{CloudProcess, Effect, Entry, Fault, On, Operation},
    process::temp_dir,
};
use anyhow::Result;
use tempfile::TempDir;

/// The bucket of each.
const BUCKET: &str = "files";

/// Two S3 servers with faults to order. Dropped, they are killed.
pub struct TwoClouds {
    pub east: CloudProcess,
    pub west: CloudProcess,
    folder: TempDir,
}

impl TwoClouds {
    /// Starts both, empty.
    pub async fn start() -> Result<Self> {
        let folder = temp_dir("clouds")?;
        let (east, west) = tokio::try_join!(
            CloudProcess::start("east", folder.path(), BUCKET),
            CloudProcess::start("west", folder.path(), BUCKET)
        )?;
        Ok(Self { east, west, folder })
    }

    /// Where they are: `east` is the preferred primary.
    pub fn places(&self) -> Result<[CloudPlace; 2]> {
        let folder = self.folder.path();
        Ok([CloudPlace::s3("east", &self.east, folder)?, CloudPlace::s3("west", &self.west, folder)?])
    }

    /// What each cloud was asked about the objects that an error names, for the reader of a failed test.
    pub async fn asked_about(&self, error: &anyhow::Error) -> String {
        let mut text = format!("{error:#}");
        let named = text.clone();
        for (name, cloud) in [("east", &self.east), ("west", &self.west)] {
            let log = cloud.remote().log(0).await.unwrap_or_default();
            for entry in log.iter().filter(|entry| entry.key.len() > "segments/".len() && named.contains(&entry.key)) {
                let Entry { at_ms, operation, key, outcome, .. } = entry;
                text += &format!("\n{name} {at_ms} ms: {operation:?} {key} {outcome:?}");
            }
        }
        text
    }
}

/// Puts of segments among the requests of a journal.
pub fn segment_puts(log: &[Entry]) -> impl Iterator<Item = &Entry> {
    log.iter().filter(|entry| entry.operation == Operation::Put && entry.key.starts_with("segments/"))
}

/// Faults that hold a resync until the cloud is healed: the first `through` puts of segments happen, every other one is
/// refused, so slowly that no piece comes near the count that trips a cloud within [`super::SOON`].
pub fn held(through: u64) -> [Fault; 2] {
    let refused = Effect::Status { status: 503, happened: false };
    [Fault::new(On::Put, Effect::Slowly).times(through), Fault::new(On::Put, refused).delay_ms(1_000)]
        .map(|fault| fault.prefix("segments/"))
}
