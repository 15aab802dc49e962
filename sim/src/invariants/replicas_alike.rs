//! After healing all filers agree: their tables are the same, row by row.
//!
//! Why it matters: each filer answers its clients from its own tables. Two that differ show two file systems, and no later
//! change brings them together again.

use mesh::{
    FilerId,
    kv::{KvRead, MemoryKv, STATE},
};
use std::ops::Bound::Unbounded;

/// Compares the replicas of filers that have applied the same entries.
pub fn replicas_alike(replicas: &[(FilerId, MemoryKv)]) -> Result<(), String> {
    let rows = |kv: &MemoryKv| kv.scan(STATE, (Unbounded, Unbounded), usize::MAX, false).map_err(|e| e.to_string());
    let Some(((first, one), others)) = replicas.split_first() else {
        return Ok(());
    };
    let one = rows(one)?;
    for (id, other) in others {
        let other = rows(other)?;
        if one == other {
            continue;
        }
        let parts = one.iter().zip(&other).find(|(a, b)| a != b).map(|(a, b)| (&a.0).min(&b.0));
        let longer = if one.len() > other.len() { &one } else { &other };
        let key = parts.or_else(|| longer.get(one.len().min(other.len())).map(|row| &row.0));
        return Err(format!(
            "filer {first} has {} rows and filer {id} has {}; the first that differs is {key:?}",
            one.len(),
            other.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::kv::Batch;

    #[test]
    fn a_row_that_differs_or_is_not_there_is_told() {
        let replica = |id: u64, rows: &[(&'static [u8], &'static [u8])]| {
            let (kv, mut batch) = (MemoryKv::default(), Batch::default());
            rows.iter().for_each(|(key, value)| batch.put(STATE, key.to_vec(), value.to_vec()));
            kv.write_unsynced(batch);
            (FilerId(id), kv)
        };
        let one = replica(1, &[(b"a", b"1"), (b"b", b"2")]);
        assert_eq!(replicas_alike(&[one.clone(), replica(2, &[(b"a", b"1"), (b"b", b"2")])]), Ok(()));
        let told = |other| replicas_alike(&[one.clone(), other]).expect_err("they differ");
        assert!(told(replica(2, &[(b"a", b"1"), (b"b", b"3")])).contains("b\"b\""));
        assert!(
            told(replica(3, &[(b"a", b"1")])).contains("filer 00000003 has 1; the first that differs is Some(b\"b\")")
        );
    }
}
