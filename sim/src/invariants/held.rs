//! What is released is in every required cloud with its MD5, or on record as missed; what is not released is in staging.
//!
//! Why it matters: a filer evicts what is released. Were it anywhere less, the only copy would be gone.

use crate::world::clouds::SimCloud;
use mesh::{FilerId, kv::MemoryKv};
use std::collections::BTreeMap;
use storage::{
    cloudfs::{Copy, MissKind, read},
    disk::MemoryDisk,
    ids::CloudId,
    staging::staging_file,
};

/// Segments looked at in one step.
const STEP_ROWS: usize = 1000;

/// Checks the record of one replica, the newest there is, against clouds and disks of this very moment. `disks`: of all
/// filers that are not lost. `is_behind`: crashes have taken back a part of the record, which is in the logs alone. Its filer
/// may have let go of a segment by what the record does not say any more; then a cloud has it.
pub fn released_is_held(
    tables: &MemoryKv,
    clouds: &[SimCloud; 2],
    disks: &BTreeMap<FilerId, MemoryDisk>,
    is_behind: bool,
) -> Result<(), String> {
    let mut after = None;
    loop {
        let rows = read::segments(tables, after, STEP_ROWS).map_err(|e| e.to_string())?;
        for (id, row) in &rows {
            // A dead one may be deleted at any moment; nobody reads it.
            if row.live_bytes == 0 {
                continue;
            }
            let key = id.key();
            let Some(object) = row.object else {
                let staged = disks.get(&id.filer).is_none_or(|disk| disk.has(&staging_file(*id)));
                let excused = is_behind && clouds.iter().any(|cloud| cloud.md5(&key).is_some());
                if !staged && !excused {
                    return Err(format!(
                        "segment {id} is in no cloud and not in staging, with {} bytes",
                        row.live_bytes
                    ));
                }
                continue;
            };
            for cloud in CloudId::BOTH {
                let there = &clouds[cloud.index()];
                match object.copies[cloud.index()] {
                    Copy::Stored if there.has_lost(&key) => {}
                    Copy::Stored if there.md5(&key) == Some(object.md5) => {}
                    Copy::Stored => {
                        return Err(format!("segment {id} is released, and cloud {cloud} has {:?}", there.md5(&key)));
                    }
                    Copy::Missed => {
                        let miss = read::miss(tables, cloud, *id).map_err(|e| e.to_string())?;
                        if !miss.is_some_and(|miss| miss.kind == MissKind::Put) {
                            return Err(format!("segment {id} is missed by cloud {cloud}, and the log says {miss:?}"));
                        }
                    }
                }
            }
        }
        match rows.last() {
            Some((last, _)) if rows.len() == STEP_ROWS => after = Some(*last),
            _ => return Ok(()),
        }
    }
}
