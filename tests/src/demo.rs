//! The main job, shown: one file system at three sites, in two clouds, through a cloud's failure and back.
//!
//! ```text
//! build ─▶ copy in at ams, read at nyc and sgp ─▶ kill the active cloud, clients at work everywhere
//!       ─▶ trip, vote, new epoch ─▶ work on in the outage ─▶ start the cloud again ─▶ resync, failback ─▶ proofs
//! ```
//!
//! Everything is real: filers and clouds are processes, clients speak NFSv3, the proofs read the clouds' own objects.
//!
//! Owns: the order of the story, what is shown and summed up. Does not own: sites, clouds and clients (`sites`, `cloud`,
//! `nfs3`), rebuilding a file (`proof`).

mod copying;
mod model;
mod proofs;
pub mod screen;
mod source;
mod stage;
mod story;
mod summary;
mod watch;
mod writers;

use crate::process::own_binary;
use anyhow::{Context, Result};
use screen::Screen;
use source::Origin;
use std::path::{Path, PathBuf};
use story::Story;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tree to copy; without one, this repository's files.
    pub dir: Option<PathBuf>,
    /// Leave everything running at the end.
    pub keep: bool,
    /// Of made files and of what clients do.
    pub seed: u64,
}

/// Shows it. True if every proof passed; an error if it did not come so far. Dropped, it ends what it started.
pub async fn run(options: &Options) -> Result<bool> {
    let screen = Screen::new();
    let source = match &options.dir {
        Some(dir) => Origin::named(dir)?,
        None => Origin::this_repository()?,
    };
    let mut folder = tempfile::Builder::new().prefix("filermesh-demo-").tempdir().context("making a directory")?;
    let told = tell(&screen, options, &source, folder.path()).await;
    let good = matches!(told, Ok(true));
    if !good {
        screen.print(&format!("\n{}", stage::log_tails(folder.path())));
        screen.print(&format!("\nWhat ran is kept for a look: {}", folder.path().display()));
    }
    if options.keep || !good {
        folder.disable_cleanup(true);
    }
    told
}

async fn tell(screen: &Screen, options: &Options, from: &Origin, folder: &Path) -> Result<bool> {
    screen.print("filermesh: one file system at three sites, in two clouds, through a cloud's failure and back");
    screen.print(&format!("tree: {}; works in {}; seed {}", from.dir.display(), folder.display(), options.seed));
    let mut story = Story::begin(screen, from, folder, options.seed).await?;
    let told = story.tell().await;
    let good = match &told {
        Ok(summary) => {
            summary.show(screen);
            summary.is_good()
        }
        // Said now, so that it does not hide behind logs.
        Err(error) => {
            screen.say(format!("FAILED: {error:#}"));
            false
        }
    };
    if options.keep {
        look_around(screen, &mut story)?;
        story.leave();
    }
    told.map(|_| good)
}

/// How to go on with what was left running.
fn look_around(screen: &Screen, story: &mut Story) -> Result<()> {
    let filer = own_binary("filer")?;
    screen.print("\nEverything is left running. To look around:");
    for site in &story.stage.sites {
        screen.print(&format!("  {} status --dir {}", filer.display(), site.dir().display()));
    }
    screen.print(&format!("  {} status --watch --dir {}", filer.display(), story.stage.sites[0].dir().display()));
    for site in &story.stage.sites {
        screen.print(&format!("  curl http://{}/metrics", site.metrics()));
    }
    screen.print("To use the file system, where the kernel has NFS (as root), or with the tools of libnfs:");
    for site in &story.stage.sites {
        let (ip, port) = (site.nfs().ip(), site.nfs().port());
        screen.print(&format!("  mount -t nfs -o vers=3,proto=tcp,port={port},mountport={port},nolock {ip}:/ /mnt"));
        screen.print(&format!("  nfs-ls '{}'", site.libnfs().url("")));
    }
    let processes = story.stage.processes()?;
    screen.print("To stop it:");
    let ids: Vec<String> = processes.iter().map(|(_, id)| id.to_string()).collect();
    screen.print(&format!("  kill {}", ids.join(" ")));
    for (name, id) in processes {
        screen.print(&format!("    {id:>8}  {name}"));
    }
    screen.print(&format!("and then: rm -rf {}", story.folder.display()));
    Ok(())
}
