//! Exports: who may mount what, and as whom; handles that outlive the server.

use super::client::{Client, Site, at, start, unpacked, unsquashed, user};
use crate::nfs::{Export, NfsServer, NfsSettings, SecretSource, Squash};
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
    let wrong = [foreign, root[..24].to_vec(), vec![], vec![0; 64]];
    for bytes in &wrong {
        let handle = nfs_fh3 { data: Opaque::owned(bytes.clone()) };
        assert_eq!(getattr(&mut client, &handle).await.expect_err("refused"), nfsstat3::NFS3ERR_BADHANDLE);
    }
    assert_eq!(site.server.stats().bad_handles, wrong.len() as u64);
}

/// `handle`, with these bytes from `from` on.
fn forged(handle: &nfs_fh3, from: usize, bytes: &[u8]) -> nfs_fh3 {
    let mut forged = handle.data.to_vec();
    forged[from..from + bytes.len()].copy_from_slice(bytes);
    nfs_fh3 { data: Opaque::owned(forged) }
}

#[tokio::test]
async fn a_client_of_one_directory_cannot_make_up_handles_of_others() {
    let memory = std::sync::Arc::new(super::memory::Memory::new());
    let secret = memory.add_directory(ROOT, "secret", 0o777);
    memory.add_directory(ROOT, "open", 0o777);
    let elsewhere = Export { networks: vec!["192.0.2.0/24".parse().expect("a network")], ..unsquashed("/") };
    let server = start(NfsSettings::default(), vec![unsquashed("/open"), elsewhere], memory.clone()).await;
    let mut client = Client::connect(server.local_addr()).await;
    let open = client.mount("/open").await.expect("exported");
    getattr(&mut client, &open).await.expect("it was given out");
    // Inode and generation of another directory, of the root, and the number of another export: all are easily guessed.
    let (ino, generation) = (secret.ino.to_be_bytes(), secret.generation.to_be_bytes());
    let root = Export::new("/").id().to_be_bytes();
    let tries = [
        forged(&forged(&open, 9, &ino), 17, &generation),
        forged(&open, 9, &ROOT.ino.to_be_bytes()),
        forged(&open, 21, &root),
        forged(&open, 17, &99u32.to_be_bytes()),
    ];
    for handle in &tries {
        assert_eq!(getattr(&mut client, handle).await.expect_err("forged"), nfsstat3::NFS3ERR_BADHANDLE);
        assert_eq!(lookup(&mut client, handle, "f").await.expect_err("forged"), nfsstat3::NFS3ERR_BADHANDLE);
        assert_eq!(create(&mut client, handle, "f").await.expect_err("forged"), nfsstat3::NFS3ERR_BADHANDLE);
    }
    assert_eq!(server.stats().bad_handles, 3 * tries.len() as u64);
    server.shutdown().await;

    // The same CloudFS behind a door with another secret: what it gave out is nothing here, and the other way round.
    let (listen, exports) = (std::net::SocketAddr::from(([127, 0, 0, 1], 0)), vec![unsquashed("/open")]);
    let door = (super::client::CLOUDFS, super::client::sealed(8));
    let other = NfsServer::start(NfsSettings::default(), exports, door, memory, listen).await.expect("a free port");
    let mut client = Client::connect(other.local_addr()).await;
    assert_eq!(getattr(&mut client, &open).await.expect_err("sealed otherwise"), nfsstat3::NFS3ERR_BADHANDLE);
}

#[tokio::test]
async fn a_filer_that_does_not_know_the_secret_yet_lets_clients_ask_again() {
    let memory = std::sync::Arc::new(super::memory::Memory::new());
    let server = start(NfsSettings::default(), vec![unsquashed("/")], memory.clone()).await;
    let root = Client::connect(server.local_addr()).await.mount("/").await.expect("exported");
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let door: (u64, SecretSource) = (super::client::CLOUDFS, std::sync::Arc::new(|| None));
    let new = NfsServer::start(NfsSettings::default(), vec![unsquashed("/")], door, memory, listen).await;
    let new = new.expect("a free port");
    let mut client = Client::connect(new.local_addr()).await;
    assert_eq!(client.mount("/").await.expect_err("not yet") as u32, mountstat3::MNT3ERR_SERVERFAULT as u32);
    assert_eq!(getattr(&mut client, &root).await.expect_err("not yet"), nfsstat3::NFS3ERR_JUKEBOX);
    assert_eq!(new.stats().bad_handles, 0);
}

#[tokio::test]
async fn a_directory_that_was_renamed_out_of_its_export_leads_nowhere_else() {
    let memory = std::sync::Arc::new(super::memory::Memory::new());
    let (a, b) = (memory.add_directory(ROOT, "a", 0o777), memory.add_directory(ROOT, "b", 0o777));
    memory.add_directory(a, "moves", 0o777);
    memory.add_directory(b, "hidden", 0o777);
    let server = start(NfsSettings::default(), vec![unsquashed("/"), unsquashed("/a")], memory).await;
    let mut client = Client::connect(server.local_addr()).await;
    let (root, top) = (client.mount("/").await.expect("exported"), client.mount("/a").await.expect("exported"));
    let moves = lookup(&mut client, &top, "moves").await.expect("there").object;
    assert_eq!(lookup(&mut client, &moves, "..").await.expect("inside").object, top);
    let (from, to) = (lookup(&mut client, &root, "a").await, lookup(&mut client, &root, "b").await);
    let (from, to) = (from.expect("there").object, to.expect("there").object);
    let rename = RENAME3args { from: at(&from, "moves"), to: at(&to, "moves") };
    let renamed: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename).await;
    assert!(matches!(renamed, RENAME3res::Ok(_)));
    assert_eq!(lookup(&mut client, &moves, "..").await.expect_err("outside"), nfsstat3::NFS3ERR_STALE);
    getattr(&mut client, &moves).await.expect("what was given out stays good");
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
