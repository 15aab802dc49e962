//! Whole files and trees: data in pieces, many at once; paths below the export's directory.

use super::{Attr, Fh, Nfs3, Nfs3Error, PIECE_BYTES};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use nfs3_types::nfs3::{ftype3, nfsstat3, stable_how, writeverf3};
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt, path::Path};

/// How often a file is written again since the server forgot unstable data.
const WRITES_AGAIN_MAX: usize = 20;

/// Directories that are looked into at the same time.
const DIRECTORIES_AT_ONCE: usize = 8;

/// What a name in a directory stands for.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub handle: Fh,
    pub attr: Attr,
}

impl Entry {
    pub fn is_directory(&self) -> bool {
        self.attr.type_ == ftype3::NF3DIR
    }
}

/// Where a file's data comes from.
enum Source<'a> {
    Memory(&'a [u8]),
    File(&'a File),
}

impl Source<'_> {
    fn piece(&self, at: u64, len: usize) -> std::io::Result<Bytes> {
        match self {
            Self::Memory(data) => Ok(Bytes::copy_from_slice(&data[at as usize..at as usize + len])),
            Self::File(file) => {
                let mut piece = BytesMut::zeroed(len);
                file.read_exact_at(&mut piece, at)?;
                Ok(piece.freeze())
            }
        }
    }
}

fn local(source: std::io::Error) -> Nfs3Error {
    Nfs3Error::Local { attempted: "reading what is to be written".into(), source }
}

fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path))
}

impl Nfs3 {
    /// Writes `data` at `offset` in pieces, and makes it durable.
    pub async fn write_at(&self, file: &Fh, offset: u64, data: &[u8]) -> Result<(), Nfs3Error> {
        self.write_from(file, offset, Source::Memory(data), data.len() as u64, &|_| {}).await
    }

    async fn write_from(
        &self,
        file: &Fh,
        offset: u64,
        source: Source<'_>,
        bytes: u64,
        wrote: &impl Fn(u64),
    ) -> Result<(), Nfs3Error> {
        let pieces = || (0..bytes).step_by(PIECE_BYTES).map(|at| (at, PIECE_BYTES.min((bytes - at) as usize)));
        for _ in 0..WRITES_AGAIN_MAX {
            let source = &source;
            let verifiers: Vec<_> = stream::iter(pieces())
                .map(|(at, len)| async move {
                    let data = source.piece(at, len).map_err(local)?;
                    self.write_piece(file, offset + at, &data, stable_how::UNSTABLE, wrote).await
                })
                .buffer_unordered(self.options().pieces_in_flight_max)
                .try_collect()
                .await?;
            let committed = self.commit(file).await?;
            if verifiers.iter().all(|verifier| *verifier == Some(committed)) {
                return Ok(());
            }
            // The server started anew in between: unstable data may be gone.
        }
        let what = "the server's verifier changes each time".into();
        Err(Nfs3Error::Protocol { attempted: "COMMIT".into(), what })
    }

    /// Writes what one call holds; the server's verifier, unless it changed in between: what the first one stands for is
    /// lost then.
    async fn write_piece(
        &self,
        file: &Fh,
        offset: u64,
        data: &[u8],
        stable: stable_how,
        wrote: &impl Fn(u64),
    ) -> Result<Option<writeverf3>, Nfs3Error> {
        let (mut done, mut verifiers) = (0, Vec::new());
        while done < data.len() {
            let (taken, verifier) = self.write(file, offset + done as u64, &data[done..], stable).await?;
            if taken == 0 || taken > data.len() - done {
                let what = format!("{taken} bytes taken of {}", data.len() - done);
                return Err(Nfs3Error::Protocol { attempted: "WRITE".into(), what });
            }
            done += taken;
            wrote(taken as u64);
            verifiers.push(verifier);
        }
        verifiers.dedup();
        Ok(verifiers.pop().filter(|_| verifiers.is_empty()))
    }

    /// Reads a file from its start to its end; `take` gets its bytes in order. The number of bytes.
    pub async fn read_each(&self, file: &Fh, mut take: impl FnMut(&[u8])) -> Result<u64, Nfs3Error> {
        let bytes = self.getattr(file).await?.size;
        let mut pieces = stream::iter((0..bytes).step_by(PIECE_BYTES))
            .map(|at| self.read_whole(file, at, PIECE_BYTES.min((bytes - at) as usize)))
            .buffered(self.options().pieces_in_flight_max);
        let mut total = 0;
        while let Some(piece) = pieces.try_next().await? {
            take(&piece);
            total += piece.len() as u64;
        }
        Ok(total)
    }

    /// Reads exactly these bytes, or fewer where the file ends.
    async fn read_whole(&self, file: &Fh, offset: u64, len: usize) -> Result<Bytes, Nfs3Error> {
        let (first, end) = self.read(file, offset, len).await?;
        if first.len() == len || end {
            return Ok(first);
        }
        let mut whole = BytesMut::from(&first[..]);
        loop {
            let (more, end) = self.read(file, offset + whole.len() as u64, len - whole.len()).await?;
            whole.extend_from_slice(&more);
            if whole.len() == len || end {
                return Ok(whole.freeze());
            }
            if more.is_empty() {
                let what = "no bytes, and no end of the file".into();
                return Err(Nfs3Error::Protocol { attempted: "READ".into(), what });
            }
        }
    }

    /// What a path below the export's directory stands for; `""` is that directory.
    pub async fn walk(&self, path: &str) -> Result<(Fh, Attr), Nfs3Error> {
        let mut here = (self.root(), None);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let (handle, attr) = self.lookup(&here.0, name).await?;
            here = (handle, Some(attr));
        }
        match here {
            (handle, Some(attr)) => Ok((handle, attr)),
            (root, None) => self.getattr(&root).await.map(|attr| (root, attr)),
        }
    }

    /// The directory of this path, made with all above it where it is missing.
    pub async fn make_dirs(&self, path: &str) -> Result<Fh, Nfs3Error> {
        let mut dir = self.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            dir = match self.lookup(&dir, name).await {
                Ok((found, _)) => found,
                Err(error) if error.is_missing() => match self.mkdir(&dir, name).await {
                    Err(error) if error.status() == Some(nfsstat3::NFS3ERR_EXIST) => self.lookup(&dir, name).await?.0,
                    made => made?,
                },
                Err(error) => return Err(error),
            };
        }
        Ok(dir)
    }

    /// Makes the file of this path hold `data`, durably. Its directory must be there.
    pub async fn put(&self, path: &str, data: &[u8]) -> Result<(), Nfs3Error> {
        let (dir, name) = split(path);
        self.put_in(&self.walk(dir).await?.0, name, data).await
    }

    /// Makes a file of a directory hold `data`, durably.
    pub async fn put_in(&self, dir: &Fh, name: &str, data: &[u8]) -> Result<(), Nfs3Error> {
        self.put_from(dir, name, Source::Memory(data), data.len() as u64, &|_| {}).await
    }

    /// Copies a local file into a directory, durably; `wrote` hears of bytes as they are written. The number of bytes.
    pub async fn put_file(&self, dir: &Fh, name: &str, local: &Path, wrote: impl Fn(u64)) -> Result<u64, Nfs3Error> {
        let failed = |source| Nfs3Error::Local { attempted: format!("reading {}", local.display()), source };
        let file = File::open(local).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        self.put_from(dir, name, Source::File(&file), bytes, &wrote).await?;
        Ok(bytes)
    }

    async fn put_from(
        &self,
        dir: &Fh,
        name: &str,
        source: Source<'_>,
        bytes: u64,
        wrote: &impl Fn(u64),
    ) -> Result<(), Nfs3Error> {
        let (file, attr) = self.open(dir, name).await?;
        if attr.size > 0 {
            self.truncate(&file, 0).await?;
        }
        match bytes as usize {
            0 => Ok(()),
            // A kernel's client writes what one call holds durably at once, and saves the COMMIT.
            len @ 1..=PIECE_BYTES => {
                let data = source.piece(0, len).map_err(local)?;
                self.write_piece(&file, 0, &data, stable_how::FILE_SYNC, wrote).await.map(drop)
            }
            _ => self.write_from(&file, 0, source, bytes, wrote).await,
        }
    }

    /// The whole content of the file of this path.
    pub async fn get(&self, path: &str) -> Result<Bytes, Nfs3Error> {
        let (file, attr) = self.walk(path).await?;
        let mut data = Vec::with_capacity(attr.size as usize);
        self.read_each(&file, |piece| data.extend_from_slice(piece)).await?;
        Ok(data.into())
    }

    /// Every file below the directory of this path, by its path from there.
    pub async fn tree(&self, path: &str) -> Result<BTreeMap<String, Entry>, Nfs3Error> {
        let mut files = BTreeMap::new();
        let mut level = vec![(String::new(), self.walk(path).await?.0)];
        while !level.is_empty() {
            let listed: Vec<_> = stream::iter(level)
                .map(|(at, dir)| async move { self.readdirplus(&dir).await.map(|entries| (at, entries)) })
                .buffer_unordered(DIRECTORIES_AT_ONCE)
                .try_collect()
                .await?;
            level = Vec::new();
            for (at, entry) in
                listed.into_iter().flat_map(|(at, entries)| entries.into_iter().map(move |e| (at.clone(), e)))
            {
                let path = if at.is_empty() { entry.name.clone() } else { format!("{at}/{}", entry.name) };
                if entry.is_directory() {
                    level.push((path, entry.handle));
                } else {
                    files.insert(path, entry);
                }
            }
        }
        Ok(files)
    }
}
