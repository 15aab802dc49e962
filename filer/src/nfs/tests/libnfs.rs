//! libnfs's own tools as clients: `nfs-ls`, `nfs-cp`, `nfs-cat` (Debian: libnfs-utils).

#![expect(clippy::disallowed_methods, reason = "real clients, that copy real files")]

use super::client::Site;
use std::path::Path;
use std::process::{Command, Output};
use storage::cloudfs::ROOT;

async fn run(program: &'static str, arguments: Vec<String>) -> Output {
    let ran = tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output());
    let output = ran.await.expect("no panic").unwrap_or_else(|error| panic!("{program} (libnfs-utils): {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_in_listed_and_copied_out() {
    let site = Site::open().await;
    let below = site.memory.add_directory(ROOT, "export", 0o777);
    for index in 0..1500 {
        site.memory.add_directory(below, &format!("directory-{index}"), 0o755);
    }
    let port = site.server.local_addr().port();
    // libnfs takes all up to the last slash for the export, and none for an error: the root is a slash of its own.
    let url = |path: &str| format!("nfs://127.0.0.1{path}?nfsport={port}&mountport={port}&version=3");
    let folder = std::env::temp_dir().join(format!("nfs-tools-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable temporary directory");
    let path = |name: &str| Path::new(&folder).join(name).to_string_lossy().into_owned();
    let data: Vec<u8> = (0..3_000_001u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(path("in"), &data).expect("room for a file");

    run("nfs-cp", vec![path("in"), url("//copied")]).await;
    let (attr, content) = site.memory.content("copied").expect("copied");
    assert!(attr.bytes == data.len() as u64 && content == data);
    run("nfs-cp", vec![url("//copied"), path("out")]).await;
    assert!(std::fs::read(path("out")).expect("copied out") == data);
    let shown = run("nfs-cat", vec![url("//copied")]).await;
    assert!(shown.stdout == data);
    let listed = run("nfs-ls", vec![url("/export")]).await;
    let listed = String::from_utf8(listed.stdout).expect("ASCII names");
    assert_eq!(listed.lines().filter(|line| line.contains("directory-")).count(), 1500);
    std::fs::remove_dir_all(&folder).expect("ours");

    let stats = site.server.stats();
    assert!(stats.written_bytes == data.len() as u64 && stats.read_bytes == 2 * data.len() as u64, "{stats:?}");
    assert!(stats.mount_calls >= 8 && stats.garbage_closed == 0);
}
