//! A client's work on files: one writer at a time, at whatever site, and any reader.

use super::{Client, File, caller, insist, make_file, read_all};
use bytes::Bytes;
use filer::{
    filer::Filer,
    fs::{FileSystem, FsError, SetAttr, Stable},
};
use std::{rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};

/// How many write sessions of a thousand are of any client's files, and not of its own.
const OTHERS_PER_MILLE: u64 = 300;
/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 96 << 10;
/// Time between two reads of a file that was closed: once the first is answered, and until it is.
const READ_BACK_EVERY: Duration = Duration::from_millis(100);
const READ_BACK_AGAIN: Duration = Duration::from_millis(20);

/// The filer began a new run: what was not closed is to be sent again.
struct StartedAnew;

impl Client {
    fn run(&self) -> u64 {
        self.world.at(self.site, |site| site.runs())
    }

    /// Opens a file, its own or somebody's, that nobody writes to; changes it, and closes it: through crashes of its filer.
    pub(super) async fn write_session(&self) {
        let of_others = self.dice.per_mille(OTHERS_PER_MILLE);
        let file = match of_others {
            true => self.dice.pick(&self.shared.files.borrow()).clone(),
            false => self.dice.pick(&self.own.borrow()).clone(),
        };
        if file.removed.get() || file.is_open.replace(true) {
            return;
        }
        if !self.open(&file).await {
            return file.is_open.set(false);
        }
        let mut run = self.run();
        for _ in 0..self.dice.between(1, 4) {
            if self.change(&file).await.is_err() || self.run() != run {
                run = self.send_again(&file).await;
            }
            if self.dice.per_mille(400) && self.run() == run {
                self.read_own(&file, run).await;
            }
        }
        // Closed when a commit is answered by the run that all changes went to.
        loop {
            let handle = file.handle;
            let committed =
                insist(&self.world, self.site, async move |filer: Filer| filer.vfs.commit(&caller(), handle).await);
            match committed.await {
                // What is left of it is of no interest.
                Err(_) if file.removed.get() => return,
                Err(error) => return self.wrong(format!("a commit of inode {}: {error}", file.handle.ino)),
                Ok(_) if self.run() == run => break,
                Ok(_) => run = self.send_again(&file).await,
            }
        }
        file.history.borrow_mut().close();
        self.read_back(&file).await;
        if !of_others {
            self.name_anew(&file).await;
        }
        file.is_open.set(false);
    }

    /// Opens a file for writing: it is as long as it was closed, wherever that was. Whether it can be written to.
    async fn open(&self, file: &File) -> bool {
        let handle = file.handle;
        if file.writer.get() != self.site {
            let attr =
                insist(&self.world, self.site, async move |filer: Filer| filer.vfs.getattr(&caller(), handle).await);
            let (found, closed) = (attr.await, file.history.borrow().bytes() as u64);
            match found {
                Ok(attr) if attr.bytes == closed => self.world.coverage.hit("files written by another site"),
                Err(error) if file.excuses(&self.world, &error) => return false,
                found => {
                    let found = found.map(|attr| attr.bytes);
                    self.wrong(format!(
                        "inode {} was closed with {closed} bytes, and an open finds {found:?}",
                        handle.ino
                    ));
                    return false;
                }
            }
        }
        file.writer.set(self.site);
        file.sites.borrow_mut().insert(self.site);
        true
    }

    /// Gives a file that it has closed a new name, or removes it and makes another one, now and then.
    async fn name_anew(&self, file: &Rc<File>) {
        if file.removed.get() {
            // An operator removes it at this moment.
            return;
        }
        let (dir, old) = (file.dir, file.name.borrow().clone());
        // No name is given twice: whoever still removes the old one removes nothing else.
        let new = format!("{}-{:x}", old.split('-').take(2).collect::<Vec<_>>().join("-"), self.dice.next());
        match self.dice.below(40) {
            0 => {
                let called = new.clone();
                let renamed = insist(&self.world, self.site, async move |filer: Filer| {
                    let renamed = filer.vfs.rename(&caller(), (dir, old.as_bytes()), (dir, called.as_bytes())).await;
                    match renamed {
                        // An attempt before has done it.
                        Err(FsError::NoEntry) => filer.vfs.lookup(&caller(), dir, called.as_bytes()).await.map(drop),
                        renamed => renamed.map(drop),
                    }
                });
                match renamed.await {
                    Ok(()) => {
                        *file.name.borrow_mut() = new;
                        self.world.coverage.hit("files renamed");
                    }
                    Err(_) if file.removed.get() => {}
                    Err(error) => self.wrong(format!("a rename of inode {}: {error}", file.handle.ino)),
                }
            }
            1 => {
                // Whoever reads it meanwhile may be told so.
                file.removed.set(true);
                let removed = insist(&self.world, self.site, async move |filer: Filer| {
                    match filer.vfs.remove(&caller(), dir, old.as_bytes()).await {
                        Err(FsError::NoEntry) => Ok(()),
                        removed => removed.map(drop),
                    }
                });
                let made = match removed.await {
                    Ok(()) => make_file(&self.world, self.site, dir, new).await,
                    Err(error) => Err(error),
                };
                match made {
                    Ok(new) => {
                        self.world.coverage.hit("files removed");
                        self.own.borrow_mut().retain(|own| !Rc::ptr_eq(own, file));
                        self.own.borrow_mut().push(new.clone());
                        self.shared.files.borrow_mut().push(new);
                    }
                    Err(error) => self.wrong(format!("a removal of inode {}: {error}", file.handle.ino)),
                }
            }
            _ => {}
        }
    }

    async fn change(&self, file: &Rc<File>) -> Result<(), StartedAnew> {
        let long = file.history.borrow().bytes() as u64;
        if self.dice.per_mille(150) {
            let bytes = self.dice.below(long + 5_000).min(FILE_BYTES_MAX) as usize;
            file.history.borrow_mut().cut(bytes);
            return self.ask(file, Err(bytes)).await;
        }
        let at = if self.dice.per_mille(300) { long } else { self.dice.below(long + 3_000) }.min(FILE_BYTES_MAX - 1);
        let len = self.dice.between(1, 20_000).min(FILE_BYTES_MAX - at);
        let tag = self.dice.next();
        let data: Vec<u8> = (0..len).map(|place| (tag.rotate_left((place % 61) as u32) ^ place) as u8).collect();
        file.history.borrow_mut().write(at as usize, data.clone());
        self.ask(file, Ok((at as usize, data))).await
    }

    /// Asks for one change until it is answered, or the filer has begun anew.
    async fn ask(&self, file: &Rc<File>, change: Result<(usize, Vec<u8>), usize>) -> Result<(), StartedAnew> {
        let (handle, run) = (file.handle, self.run());
        let stable = if self.dice.per_mille(200) { Stable::FileSync } else { Stable::Unstable };
        let change = change.map(|(at, data)| (at as u64, Bytes::from(data)));
        let answer = insist(&self.world, self.site, async move |filer: Filer| match change.clone() {
            Ok((at, data)) => filer.vfs.write(&caller(), handle, at, data, stable).await.map(drop),
            Err(bytes) => {
                let set = SetAttr { bytes: Some(bytes as u64), ..SetAttr::default() };
                filer.vfs.setattr(&caller(), handle, set, None).await.map(drop)
            }
        });
        match answer.await {
            Err(error) if !file.removed.get() => self.wrong(format!("a change of inode {}: {error}", handle.ino)),
            _ => {}
        }
        if self.run() == run { Ok(()) } else { Err(StartedAnew) }
    }

    /// Sends everything that is not closed again, in its order, to one run of the filer; gives that run.
    async fn send_again(&self, file: &Rc<File>) -> u64 {
        'again: loop {
            let run = self.run();
            let unclosed = file.history.borrow().unclosed();
            for change in unclosed {
                // What readers may see while it is sent: the older states once more.
                match &change {
                    Ok((at, data)) => file.history.borrow_mut().write_again(*at, data.clone()),
                    Err(bytes) => file.history.borrow_mut().cut_again(*bytes),
                }
                if self.ask(file, change).await.is_err() || self.run() != run {
                    continue 'again;
                }
            }
            return run;
        }
    }

    /// The writer reads its own file: exactly what it wrote.
    async fn read_own(&self, file: &Rc<File>, run: u64) {
        let handle = file.handle;
        let at = self.dice.below(file.history.borrow().bytes() as u64 + 100);
        let len = self.dice.between(1, 30_000);
        let read = insist(&self.world, self.site, async move |filer: Filer| {
            filer.vfs.read(&caller(), handle, at, len as u32).await
        });
        match read.await {
            Ok(_) if self.run() != run => {}
            Ok(read) => self.check_own(file, at, len, &read.data),
            Err(error) if file.excuses(&self.world, &error) => {}
            Err(error) => self.wrong(format!("a read of inode {}: {error}", handle.ino)),
        }
    }

    /// Checks what the writer itself was given, when it asked for so many bytes.
    fn check_own(&self, file: &File, at: u64, asked: u64, got: &[u8]) {
        self.world.coverage.hit("reads verified");
        self.world.coverage.add("bytes verified", got.len() as u64);
        if let Err(what) = file.history.borrow().check_own(at as usize, got, asked as usize) {
            self.wrong(format!("inode {}, its own: {what}", file.handle.ino));
        }
    }

    /// The writer goes on reading what it has closed, for as long as the plan says, and until it is answered: exactly that,
    /// through crashes of its filer, which it asks again at once when it is back.
    async fn read_back(&self, file: &File) {
        let (handle, run) = (file.handle, self.run());
        let end = Instant::now() + Duration::from_millis(self.world.plan.read_back_ms);
        let (mut answered, mut wait) = (true, None);
        while Instant::now() < end || !answered {
            wait.get_or_insert_with(|| self.world.waits(self.site));
            let read = self.world.call(self.site, async move |filer: Filer| {
                filer.vfs.read(&caller(), handle, 0, FILE_BYTES_MAX as u32).await
            });
            answered = match read.await {
                Ok(Err(FsError::Later(_))) | Err(_) => false,
                Ok(Ok(read)) => {
                    if self.run() != run {
                        self.world.coverage.hit("reads behind a crash");
                    }
                    self.check_own(file, 0, FILE_BYTES_MAX, &read.data);
                    true
                }
                Ok(Err(error)) if file.excuses(&self.world, &error) => return,
                Ok(Err(error)) => return self.wrong(format!("a read of inode {}: {error}", handle.ino)),
            };
            wait.take_if(|_| answered);
            sleep(if answered { READ_BACK_EVERY } else { READ_BACK_AGAIN }).await;
        }
    }

    /// Opens any file and reads it.
    pub(super) async fn read_somebodys(&self) {
        let file = self.dice.pick(&self.shared.files.borrow()).clone();
        if file.removed.get() {
            return;
        }
        let (handle, pieces) = (file.handle, *self.dice.pick(&[4_000, 16_384, 65_536]));
        let wait = self.world.waits(self.site);
        // From the open that succeeds: an attempt that failed has opened nothing.
        let read = loop {
            let opened = file.history.borrow().open();
            let read = self.world.call(self.site, async move |filer| read_all(&filer, handle, pieces).await).await;
            match read {
                Ok(Err(FsError::Later(_))) | Err(_) if self.world.healed.get() => return,
                Ok(Err(FsError::Later(_))) | Err(_) => {
                    sleep(Duration::from_millis(400)).await;
                }
                Ok(read) => break read.map(|read| (opened, read)),
            }
        };
        drop(wait);
        match read {
            Ok((opened, (bytes, data))) => {
                self.world.coverage.hit("reads verified");
                self.world.coverage.add("bytes verified", data.len() as u64);
                let history = file.history.borrow();
                let whole = if data.len() < bytes { history.check_end(&opened, data.len()) } else { Ok(()) };
                let checked = history.check_length(&opened, bytes).and(whole);
                let checked = checked.and_then(|()| history.check(&opened, 0, &data));
                if let Err(what) = checked {
                    self.wrong(format!("inode {}: {what}", handle.ino));
                }
            }
            Err(error) if file.excuses(&self.world, &error) => {}
            Err(error) => self.wrong(format!("a read of inode {}: {error}", handle.ino)),
        }
    }
}
