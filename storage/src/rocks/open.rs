//! Opening a directory of tables, without touching one that this program does not understand.
//!
//! The table `meta` holds a record `format`: four bytes, big endian. It is read with the directory opened for reading
//! alone; only then is the directory opened for writing.

#![expect(clippy::disallowed_methods, reason = "RocksDB's directory is a real one")]

use super::{RocksSettings, TABLES};
use mesh::kv::{ARRIVING, KvError, META, STATE, Table};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, LogLevel, Options,
    WriteOptions,
};
use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The format this program writes, and the newest it reads.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
/// The column family RocksDB always has.
const DEFAULT: &str = "default";
/// Lengths of RocksDB's own log files, in bytes, and how many are kept.
const LOG_FILE_BYTES: usize = 4 << 20;
const LOG_FILES_KEPT: usize = 4;
/// The filter over the keys of writes that are not yet in tables, as a part of the memory that these may take.
const MEMTABLE_FILTER_RATIO: f64 = 0.02;

/// A directory of tables cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory itself cannot be made or read.
    #[error("tables in {dir}")]
    Directory { dir: PathBuf, source: io::Error },
    /// A newer program wrote it. Nothing was changed.
    #[error(
        "tables in {dir} have format {found}, and this program knows formats up to {known}: a newer filer wrote them"
    )]
    Newer { dir: PathBuf, found: u32, known: u32 },
    /// It holds tables this program does not know. Nothing was changed.
    #[error("tables in {dir}: unknown tables {unknown:?}, so they belong to a newer filer or to another program")]
    UnknownTables { dir: PathBuf, unknown: Vec<String> },
    /// It holds data, and not the record that says what they mean. Nothing was changed.
    #[error("tables in {dir} have no valid record of their format")]
    NoFormat { dir: PathBuf },
    /// What it holds cannot be read.
    #[error("tables in {dir}")]
    Unreadable { dir: PathBuf, source: KvError },
    /// RocksDB refuses: another process has it open, or it is damaged.
    #[error("{attempted} tables in {dir}")]
    Rocks { attempted: &'static str, dir: PathBuf, source: rocksdb::Error },
}

pub(super) fn open(dir: &Path, settings: &RocksSettings) -> Result<DB, OpenError> {
    let wrong = |source| OpenError::Directory { dir: dir.into(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
    if let Some(parent) = dir.canonicalize().map_err(wrong)?.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(wrong)?;
    }
    let is_new = match dir.join("CURRENT").try_exists().map_err(wrong)? {
        true => is_unfinished(dir)?,
        false => true,
    };
    let cache = Cache::new_lru_cache(settings.block_cache_bytes);
    let families = TABLES.map(|table| ColumnFamilyDescriptor::new(table.0, table_options(table, &cache, settings)));
    let rocks = |attempted| move |source| OpenError::Rocks { attempted, dir: dir.into(), source };
    let db = DB::open_cf_descriptors(&database_options(settings), dir, families).map_err(rocks("opening"))?;
    if is_new {
        let meta = db.cf_handle(META.0).expect("every table was just opened");
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        db.put_cf_opt(meta, FORMAT_KEY, FORMAT.to_be_bytes(), &synced).map_err(rocks("writing the format of"))?;
    }
    Ok(db)
}

/// The value of a key in a directory that is only read; `None` also where there are no tables yet.
pub(super) fn look(dir: &Path, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
    let wrong = |source| OpenError::Directory { dir: dir.into(), source };
    if !dir.join("CURRENT").try_exists().map_err(wrong)? || is_unfinished(dir)? {
        return Ok(None);
    }
    let rocks = |attempted| move |source| OpenError::Rocks { attempted, dir: dir.into(), source };
    let db = DB::open_cf_for_read_only(&Options::default(), dir, [table.0], false).map_err(rocks("reading"))?;
    let family = db.cf_handle(table.0).expect("the table was just opened");
    db.get_cf(family, key).map_err(rocks("reading"))
}

/// Reads what an existing directory is. True: its making was cut short before anything was written to it.
fn is_unfinished(dir: &Path) -> Result<bool, OpenError> {
    let rocks = |attempted| move |source| OpenError::Rocks { attempted, dir: dir.into(), source };
    let options = Options::default();
    let found = DB::list_cf(&options, dir).map_err(rocks("listing"))?;
    let known = |name: &String| name == DEFAULT || TABLES.iter().any(|table| table.0 == name);
    let unknown: Vec<String> = found.iter().filter(|name| !known(name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(OpenError::UnknownTables { dir: dir.into(), unknown });
    }
    let db = DB::open_cf_for_read_only(&options, dir, &found, false).map_err(rocks("reading"))?;
    let format = match db.cf_handle(META.0) {
        Some(meta) => db.get_cf(meta, FORMAT_KEY).map_err(rocks("reading the format of"))?,
        None => None,
    };
    match format.map(|format| <[u8; 4]>::try_from(format).map(u32::from_be_bytes)) {
        Some(Ok(FORMAT)) => Ok(false),
        Some(Ok(newer)) if newer > FORMAT => Err(OpenError::Newer { dir: dir.into(), found: newer, known: FORMAT }),
        Some(_) => Err(OpenError::NoFormat { dir: dir.into() }),
        None => {
            let is_empty = |name: &String| {
                db.cf_handle(name).is_none_or(|family| db.iterator_cf(family, IteratorMode::Start).next().is_none())
            };
            if found.iter().all(is_empty) { Ok(true) } else { Err(OpenError::NoFormat { dir: dir.into() }) }
        }
    }
}

fn database_options(settings: &RocksSettings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(settings.open_files_max.min(i32::MAX as u32) as i32);
    options.set_db_write_buffer_size(settings.write_buffer_bytes);
    // A table that is seldom written must not keep old write-ahead logs alive for long.
    options.set_max_total_wal_size(2 * settings.write_buffer_bytes as u64);
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(LOG_FILE_BYTES);
    options.set_keep_log_file_num(LOG_FILES_KEPT);
    options
}

fn table_options(table: Table, cache: &Cache, settings: &RocksSettings) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    // Indexes and filters count towards the cache, so that its size bounds the memory for reads.
    blocks.set_cache_index_and_filter_blocks(true);
    // Those of the newest tables, which every look goes through, are not looked for in the cache each time.
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_write_buffer_size(settings.write_buffer_bytes);
    if table == STATE || table == ARRIVING {
        // Many looks are for what is not there yet: a name, a request's answer.
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
        options.set_memtable_whole_key_filtering(true);
    }
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
