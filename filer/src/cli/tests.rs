//! The commands, from their words to the files and answers they leave.

use super::*;
use std::os::unix::fs::PermissionsExt;

mod asking;
mod certificates;
mod joining;
mod lines;
mod sites;

/// Runs a command line; gives its exit code and what it said.
fn filer(line: &[&str]) -> (u8, String) {
    let mut out = vec![];
    let cli = match Cli::try_parse_from([&["filer"], line].concat()) {
        Ok(cli) => cli,
        Err(e) => return (e.exit_code() as u8, e.to_string()),
    };
    let done = run(cli.command, &mut out);
    let text = String::from_utf8(out).unwrap();
    match done {
        Ok(()) => (0, text),
        Err(e) => (e.exit_code(), format!("{text}{}", chain(&e))),
    }
}

/// Runs a command on a thread of its own while the door is served here.
async fn asked(line: &[&str]) -> (u8, String) {
    let line: Vec<String> = line.iter().map(|word| word.to_string()).collect();
    let run = move || filer(&line.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

/// A temporary directory, and paths in it as text.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn site(&self, name: &str) -> SiteDir {
        SiteDir::new(&self.0.path().join(name)).unwrap()
    }
}
