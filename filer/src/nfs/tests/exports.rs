//! Exports: who may mount what, and as whom; handles that outlive the server.

use super::client::{Client, Site, at, start, unpacked, unsquashed, user};
use crate::nfs::{Export, NfsSettings, Squash};
use nfs3_types::mount::{self, exports, mountlist, mountstat3};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::{Opaque, Void};
use storage::cloudfs::ROOT;

const MOUNT: (u32, u32) = (mount::PROGRAM, mount::VERSION);

async fn lookup(client: &mut Client, dir: &nfs_fh3, name: &str) -> Result<LOOKUP3resok, nfsstat3> {
    match client.nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what: at(dir, name) }).await {
        LOOKUP3res::Ok(found) => Ok(found),
        LOOKUP3res::Err((status, _)) => Err(status),
    }
}

async fn create(client: &mut Client, dir: &nfs_fh3, name: &str) -> Result<CREATE3resok, nfsstat3> {
    let args = CREATE3args { where_: at(dir, name), how: createhow3::GUARDED(sattr3::default()) };
    match client.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &args).await {
        CREATE3res::Ok(made) => Ok(made),
        CREATE3res::Err((status, _)) => Err(status),
    }
}

async fn getattr(client: &mut Client, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
    match client.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: object.clone() }).await {
        GETATTR3res::Ok(ok) => Ok(ok.obj_attributes),
        GETATTR3res::Err((status, _)) => Err(status),
    }
}

#[tokio::test]
async fn directories_of_exports_are_mounted_and_others_are_not() {
    let elsewhere = Export { networks: vec!["192.0.2.0/24".parse().expect("a network")], ..Export::new("/secret") };
    let site = Site::with(NfsSettings::default(), vec![Export::new("/open"), elsewhere]).await;
    let open = site.memory.add_directory(ROOT, "open", 0o755);
    site.memory.add_directory(open, "below", 0o700);
    site.memory.add_directory(ROOT, "secret", 0o777);
    let mut client = site.client().await;
    for path in ["/open", "/open/", "/open/below"] {
        client.mount(path).await.expect(path);
    }
    let status = |result: Result<nfs_fh3, mountstat3>| result.expect_err("refused") as u32;
    assert_eq!(status(client.mount("/secret").await), mountstat3::MNT3ERR_ACCES as u32);
    assert_eq!(status(client.mount("/").await), mountstat3::MNT3ERR_NOENT as u32);
    assert_eq!(status(client.mount("/open/../secret").await), mountstat3::MNT3ERR_NOENT as u32);
    assert_eq!(status(client.mount("/open/none").await), mountstat3::MNT3ERR_NOENT as u32);
    assert_eq!(status(client.mount(&"/open".repeat(300)).await), mountstat3::MNT3ERR_NAMETOOLONG as u32);
    let root = client.mount("/open").await.expect("exported");
    client.credentials = user(0, vec![]);
    assert_eq!(site.server.stats().refused_clients, 1);

    let listed: exports<'_, '_> = unpacked(&client.ask(MOUNT, 5, &Void).await.expect("accepted"));
    let [only] = &listed.0[..] else { panic!("{listed:?}") };
    assert_eq!((only.ex_dir.0.as_ref(), only.ex_groups.0[0].0.as_ref()), (&b"/open"[..], &b"0.0.0.0/0"[..]));
    let mounted: mountlist<'_, '_> = unpacked(&client.ask(MOUNT, 2, &Void).await.expect("accepted"));
    assert_eq!(mounted.0.len(), 3);
    client.ask(MOUNT, 3, &Opaque::borrowed(b"/open/")).await.expect("UMNT");
    let mounted: mountlist<'_, '_> = unpacked(&client.ask(MOUNT, 2, &Void).await.expect("accepted"));
    assert_eq!(mounted.0.len(), 2);
    client.ask(MOUNT, 4, &Void).await.expect("UMNTALL");
    let mounted: mountlist<'_, '_> = unpacked(&client.ask(MOUNT, 2, &Void).await.expect("accepted"));
    assert!(mounted.is_empty());
    getattr(&mut client, &root).await.expect("a handle needs no mount");
}

#[tokio::test]
async fn a_file_is_no_export() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    create(&mut client, &root, "file").await.expect("created");
    for (path, expected) in [("/file", mountstat3::MNT3ERR_NOTDIR), ("/file/x", mountstat3::MNT3ERR_NOTDIR)] {
        assert_eq!(client.mount(path).await.expect_err("not a directory") as u32, expected as u32);
    }
}

#[tokio::test]
async fn nothing_above_an_export_is_reached() {
    let site = Site::with(NfsSettings::default(), vec![unsquashed("/a/b")]).await;
    let a = site.memory.add_directory(ROOT, "a", 0o755);
    let b = site.memory.add_directory(a, "b", 0o755);
    site.memory.add_directory(b, "c", 0o755);
    let mut client = site.client().await;
    let top = client.mount("/a/b").await.expect("exported");
    let below = lookup(&mut client, &top, "c").await.expect("there").object;
    assert_eq!(lookup(&mut client, &below, "..").await.expect("inside").object, top);
    assert_eq!(lookup(&mut client, &top, "..").await.expect("stays").object, top);
    let args =
        READDIRPLUS3args { dir: top, cookie: 0, cookieverf: cookieverf3::default(), dircount: 0, maxcount: 4096 };
    let listed: READDIRPLUS3res<'_> = client.nfs(NFS_PROGRAM::NFSPROC3_READDIRPLUS, &args).await;
    let listed = listed.unwrap().reply.entries.0;
    let shown: Vec<_> = listed.iter().map(|entry| (entry.name.0.to_vec(), entry.name_handle.is_some())).collect();
    assert_eq!(shown, [(b".".to_vec(), true), (b"..".to_vec(), false), (b"c".to_vec(), true)]);
}

#[tokio::test]
async fn every_call_is_checked_against_its_export() {
    let memory = std::sync::Arc::new(super::memory::Memory::new());
    memory.add_directory(ROOT, "x", 0o777);
    let both = vec![unsquashed("/"), unsquashed("/x")];
    let server = start(NfsSettings::default(), both, memory.clone()).await;
    let mut client = Client::connect(server.local_addr()).await;
    let (root, x) = (client.mount("/").await.expect("exported"), client.mount("/x").await.expect("exported"));
    let file = create(&mut client, &x, "f").await.expect("created").obj.unwrap();

    // One file by two exports is two handles, and there is no way across.
    let rename = RENAME3args { from: at(&x, "f"), to: at(&root, "g") };
    let across: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename).await;
    assert!(matches!(across, RENAME3res::Err((nfsstat3::NFS3ERR_XDEV, _))));
    let link = LINK3args { file: file.clone(), link: at(&root, "g") };
    let across: LINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_LINK, &link).await;
    assert!(matches!(across, LINK3res::Err((nfsstat3::NFS3ERR_XDEV, _))));

    // Handles outlive the server; rules are those of today.
    server.shutdown().await;
    let narrowed = Export { networks: vec!["192.0.2.1".parse().expect("an address")], ..unsquashed("/") };
    let read_only = Export { read_only: true, ..unsquashed("/x") };
    let server = start(NfsSettings::default(), vec![narrowed, read_only], memory.clone()).await;
    let mut client = Client::connect(server.local_addr()).await;
    assert_eq!(getattr(&mut client, &root).await.expect_err("refused"), nfsstat3::NFS3ERR_ACCES);
    getattr(&mut client, &file).await.expect("the handle is still good");
    assert_eq!(create(&mut client, &x, "h").await.expect_err("read-only"), nfsstat3::NFS3ERR_ROFS);
    let access = ACCESS3args { object: file.clone(), access: 0x3f };
    let access: ACCESS3res = client.nfs(NFS_PROGRAM::NFSPROC3_ACCESS, &access).await;
    assert_eq!(access.unwrap().access & 0x1c, 0);
    server.shutdown().await;

    let server = start(NfsSettings::default(), vec![], memory).await;
    let mut client = Client::connect(server.local_addr()).await;
    assert_eq!(getattr(&mut client, &file).await.expect_err("no longer exported"), nfsstat3::NFS3ERR_STALE);
}

#[tokio::test]
async fn malformed_and_foreign_handles_are_refused() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported").data.to_vec();
    let mut foreign = root.clone();
    foreign[1] ^= 1;
    let mut gone = root.clone();
    gone[16] = 99;
    let mut other_generation = root.clone();
    other_generation[20] ^= 1;
    for (bytes, expected) in [
        (foreign, nfsstat3::NFS3ERR_BADHANDLE),
        (root[..24].to_vec(), nfsstat3::NFS3ERR_BADHANDLE),
        (vec![], nfsstat3::NFS3ERR_BADHANDLE),
        (vec![0; 64], nfsstat3::NFS3ERR_BADHANDLE),
        (gone, nfsstat3::NFS3ERR_STALE),
        (other_generation, nfsstat3::NFS3ERR_STALE),
    ] {
        let handle = nfs_fh3 { data: Opaque::owned(bytes) };
        assert_eq!(getattr(&mut client, &handle).await.expect_err("refused"), expected);
    }
}

#[tokio::test]
async fn callers_are_squashed_as_told() {
    let all = Export { squash: Squash::All, anonymous_uid: 7, anonymous_gid: 8, ..Export::new("/all") };
    let site = Site::with(NfsSettings::default(), vec![Export::new("/root"), all, unsquashed("/none")]).await;
    for name in ["root", "all", "none"] {
        site.memory.add_directory(ROOT, name, 0o777);
    }
    let mut client = site.client().await;
    let (nobody, anonymous) = ((65_534, 65_534), (7, 8));
    for (path, expected) in
        [("/root", [nobody, (5, 5), nobody]), ("/all", [anonymous; 3]), ("/none", [(0, 0), (5, 5), nobody])]
    {
        let dir = client.mount(path).await.expect("exported");
        let callers = [("zero", user(0, vec![])), ("five", user(5, vec![])), ("none", opaque_auth::default())];
        for ((name, credentials), expected) in callers.into_iter().zip(expected) {
            client.credentials = credentials;
            let attr = create(&mut client, &dir, name).await.expect("created").obj_attributes.unwrap();
            assert_eq!((attr.uid, attr.gid), expected, "{path} {name}");
        }
    }
}
