//! The real clients of libnfs: nfs-cp, nfs-cat and nfs-ls, over a CloudFS that needs no server at all.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tests::{
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan},
    process::temp_dir,
    proof::contents,
};

/// Every file below a folder, by its path from there.
fn tree(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).with_context(|| format!("listing {}", here.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder)?.display().to_string(), path);
            }
        }
    }
    Ok(found)
}

/// A tree is copied in at one site by nfs-cp, listed by nfs-ls and printed by nfs-cat at another, copied out by nfs-cp
/// at a third: the same names, sizes, owner and bytes everywhere. The clouds are two directories.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_copied_in_and_out_by_the_tools_of_libnfs() {
    let folder = temp_dir("libnfs").unwrap();
    let places = ["one", "two"].map(|name| folder.path().join(name));
    for place in &places {
        fs::create_dir(place).unwrap();
    }
    let places = places.map(|place| CloudPlace::directory(&place));
    let mesh = MeshOfFilers::start(Plan::new("libnfs", places)).await.unwrap();
    let [ams, nyc, sgp] = [0, 1, 2].map(|at| mesh.sites[at].libnfs());
    let source = tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    assert!(source.len() > 20, "{source:?}");
    let big = folder.path().join("big");
    fs::write(&big, (0..3_000_000u32).flat_map(|n| (n ^ n >> 7).to_le_bytes()).collect::<Vec<_>>()).unwrap();
    let source: BTreeMap<_, _> = source.into_iter().chain([("a-big-file".to_string(), big)]).collect();

    // The tools make no directories.
    let maker = mesh.sites[0].mount().await.unwrap();
    let mut files = BTreeMap::new();
    for (path, local) in &source {
        maker.make_dirs(path.rsplit_once('/').map_or("", |(dir, _)| dir)).await.unwrap();
        ams.put(local, path).await.unwrap();
        files.insert(path.clone(), fs::read(local).unwrap());
    }
    for dir in ["", "cloud", "nfs3"] {
        let listed = nyc.ls(dir).await.unwrap();
        let below = |path: &str| match dir {
            "" => (!path.contains('/')).then(|| path.to_string()),
            dir => path.strip_prefix(dir)?.strip_prefix('/').filter(|rest| !rest.contains('/')).map(String::from),
        };
        let wanted: BTreeMap<_, _> =
            files.iter().filter_map(|(path, data)| Some((below(path)?, data.len() as u64))).collect();
        let got: BTreeMap<_, _> = listed
            .iter()
            .filter(|entry| !entry.is_folder())
            .map(|entry| {
                assert_eq!((entry.uid, entry.gid), (1000, 1000), "{entry:?}");
                (entry.name.clone(), entry.bytes)
            })
            .collect();
        assert_eq!(got, wanted, "in /{dir}");
    }
    for (path, data) in &files {
        assert!(nyc.cat(path).await.unwrap() == *data, "nfs-cat of {path} printed something else");
    }
    let back = folder.path().join("back");
    for (path, data) in &files {
        sgp.get(path, &back).await.unwrap();
        assert!(fs::read(&back).unwrap() == *data, "nfs-cp brought something else for {path}");
        fs::remove_file(&back).unwrap();
    }
    mesh.prove(&contents(&files)).await.unwrap();
}
