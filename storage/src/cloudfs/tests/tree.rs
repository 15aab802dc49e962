use super::*;

#[test]
fn create_answers_the_file_and_its_directory_before_and_after() {
    let mut bench = Bench::new();
    let before = bench.attr(ROOT);
    let Answer::Node { before: None, after, dir_before, dir_after } = bench.ok(create(ROOT, "a")) else {
        panic!("a new file has no before");
    };
    assert_eq!((after.mode, after.uid, after.gid, after.nlink, after.bytes), (0o644, 5, 6, 1, 0));
    assert_eq!((after.atime_ns, after.mtime_ns, after.ctime_ns), (bench.wall_ns, bench.wall_ns, bench.wall_ns));
    assert_eq!(dir_before, Some(before));
    assert_eq!(dir_after, Some(bench.attr(ROOT)));
    assert_eq!(bench.attr(ROOT).mtime_ns, bench.wall_ns);
    assert_eq!(read::lookup(&bench.kv, ROOT.ino, b"a").expect("memory"), Some(after.handle.ino));
}

#[test]
fn create_over_a_name_does_what_its_mode_says() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.dir(ROOT, "d");
    bench.ok(make(ROOT, "p", NewNode::Fifo));
    bench.ok(resize(file, 100));
    let root = bench.attr(ROOT);
    assert_eq!(bench.err(create(ROOT, "f")), OpError::Exists);
    let used = bench.ok(create_as(ROOT, "f", OnExisting::Use, None));
    assert!(matches!(&used, Answer::Node { before: Some(b), after, dir_before: None, .. } if b == after));
    assert_eq!(bench.attr(file).bytes, 100);
    bench.ok(create_as(ROOT, "f", OnExisting::Use, Some(0)));
    assert_eq!(bench.attr(file).bytes, 0);
    assert_eq!(bench.attr(ROOT), root, "the directory did not change");
    assert_eq!(bench.err(create_as(ROOT, "d", OnExisting::Use, None)), OpError::IsDirectory);
    assert_eq!(bench.err(create_as(ROOT, "p", OnExisting::Use, None)), OpError::Exists);
    assert_eq!(bench.err(create_as(ROOT, "f", OnExisting::SameVerifier(4), None)), OpError::Exists);

    let made = handle(bench.ok(create_as(ROOT, "x", OnExisting::SameVerifier(4), Some(9))));
    assert_eq!(bench.attr(made).bytes, 9);
    assert_eq!(handle(bench.ok(create_as(ROOT, "x", OnExisting::SameVerifier(4), None))), made, "asked again");
    assert_eq!(bench.err(create_as(ROOT, "x", OnExisting::SameVerifier(5), None)), OpError::Exists);
    bench.ok(OpBody::SetAttr { file: made, change: AttrChange::default(), guard_ctime_ns: None });
    assert_eq!(bench.err(create_as(ROOT, "x", OnExisting::SameVerifier(4), None)), OpError::Exists);
}

#[test]
fn names_that_cannot_be_are_refused_everywhere() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for bad in ["", ".", "..", "a/b", "a\0b", &long] {
        for body in [
            create(ROOT, bad),
            mkdir(ROOT, bad),
            link(file, ROOT, bad),
            remove(ROOT, bad),
            rmdir(ROOT, bad),
            rename(ROOT, bad, ROOT, "g"),
            rename(ROOT, "f", ROOT, bad),
        ] {
            assert!(matches!(bench.err(body), OpError::Invalid(_)), "{bad:?}");
        }
    }
    bench.ok(create(ROOT, &long[1..]));
    bench.ok(create(ROOT, "..."));
}

#[test]
fn handles_of_what_is_gone_or_no_directory_are_refused() {
    let mut bench = Bench::new();
    let (file, dir) = (bench.file(ROOT, "f"), bench.dir(ROOT, "d"));
    bench.ok(rmdir(ROOT, "d"));
    let other_generation = Handle { generation: 2, ..ROOT };
    for (bad, error) in [(dir, OpError::Stale), (other_generation, OpError::Stale), (file, OpError::NotDirectory)] {
        for body in [
            create(bad, "a"),
            mkdir(bad, "a"),
            link(file, bad, "a"),
            remove(bad, "a"),
            rmdir(bad, "a"),
            rename(bad, "a", ROOT, "b"),
            rename(ROOT, "f", bad, "b"),
        ] {
            assert_eq!(bench.err(body), error);
        }
    }
    assert_eq!(bench.err(resize(dir, 0)), OpError::Stale);
    assert_eq!(bench.err(link(dir, ROOT, "a")), OpError::Stale);
    let again = bench.dir(ROOT, "d");
    assert_ne!(again.ino, dir.ino, "numbers are never used twice");
}

#[test]
fn all_kinds_of_nodes_are_made_and_removed() {
    let mut bench = Bench::new();
    let nodes = [
        NewNode::Directory,
        NewNode::Symlink { target: b"../elsewhere".to_vec() },
        NewNode::Fifo,
        NewNode::Socket,
        NewNode::BlockDevice { major: 8, minor: 1 },
        NewNode::CharacterDevice { major: 1, minor: 3 },
    ];
    for node in nodes {
        let made = handle(bench.ok(make(ROOT, "n", node.clone())));
        assert_eq!(bench.err(make(ROOT, "n", node.clone())), OpError::Exists);
        let attr = bench.attr(made);
        let (links, bytes) = match node {
            NewNode::Directory => (2, DIRECTORY_BYTES),
            NewNode::Symlink { .. } => (1, 12),
            _ => (1, 0),
        };
        assert_eq!((attr.nlink, attr.bytes), (links, bytes));
        if node == NewNode::Directory {
            assert_eq!(bench.err(remove(ROOT, "n")), OpError::IsDirectory);
            assert_eq!(bench.attr(ROOT).nlink, 3);
            bench.ok(rmdir(ROOT, "n"));
        } else {
            assert_eq!(bench.err(rmdir(ROOT, "n")), OpError::NotDirectory);
            assert!(matches!(bench.err(resize(made, 1)), OpError::Invalid(_)));
            bench.ok(remove(ROOT, "n"));
        }
        assert!(!bench.exists(made));
    }
    for target in [&b""[..], b"a\0b", &[b'x'; SYMLINK_BYTES_MAX + 1]] {
        let node = NewNode::Symlink { target: target.to_vec() };
        assert!(matches!(bench.err(make(ROOT, "n", node)), OpError::Invalid(_)));
    }
    assert_eq!(bench.totals().inodes, 1);
}

#[test]
fn set_group_id_directories_hand_down_their_group() {
    let mut bench = Bench::new();
    let dir = bench.dir(ROOT, "d");
    let change = AttrChange { mode: Some(0o2775), gid: Some(77), ..AttrChange::default() };
    bench.ok(OpBody::SetAttr { file: dir, change, guard_ctime_ns: None });
    let (file, sub) = (bench.file(dir, "f"), bench.dir(dir, "s"));
    assert_eq!((bench.attr(file).gid, bench.attr(file).mode), (77, 0o644));
    assert_eq!((bench.attr(sub).gid, bench.attr(sub).mode), (77, 0o2755));
}

#[test]
fn setattr_changes_what_it_names_and_respects_its_guard() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let made = bench.attr(file);
    let change = AttrChange {
        mode: Some(0o106_755),
        uid: Some(1),
        gid: None,
        bytes: None,
        times: Times { atime: SetTime::To { ns: 3 }, mtime: SetTime::Keep },
        clears_set_id: true,
    };
    let guarded = |guard| OpBody::SetAttr { file, change: change.clone(), guard_ctime_ns: Some(guard) };
    assert_eq!(bench.err(guarded(made.ctime_ns + 1)), OpError::NotSync);
    bench.ok(guarded(made.ctime_ns));
    let attr = bench.attr(file);
    assert_eq!((attr.mode, attr.uid, attr.gid), (0o6755, 1, 6), "mode holds permission bits alone");
    assert_eq!((attr.atime_ns, attr.mtime_ns, attr.ctime_ns), (3, made.mtime_ns, bench.wall_ns));
    assert_eq!(bench.err(resize(ROOT, 1)), OpError::IsDirectory);
    assert!(matches!(bench.err(resize(file, FILE_BYTES_MAX + 1)), OpError::Invalid(_)));
    let now = Times { atime: SetTime::Now, mtime: SetTime::To { ns: 1 } };
    let change = AttrChange { bytes: Some(5), times: now, ..AttrChange::default() };
    bench.ok(OpBody::SetAttr { file, change, guard_ctime_ns: None });
    let attr = bench.attr(file);
    assert_eq!((attr.bytes, attr.atime_ns, attr.mtime_ns), (5, bench.wall_ns, 1));
}

#[test]
fn who_has_no_privileges_takes_the_set_id_bits_along_with_what_he_changes() {
    let mut bench = Bench::new();
    let (file, dir) = (bench.file(ROOT, "f"), bench.dir(ROOT, "d"));
    let setattr = |file, change| OpBody::SetAttr { file, change, guard_ctime_ns: None };
    let chmod = |file| setattr(file, AttrChange { mode: Some(0o6755), ..AttrChange::default() });
    let write = |clears_set_id| OpBody::Write { file, extents: vec![extent(0, 9, seg(1))], mtime_ns: 0, clears_set_id };
    let cut = |clears_set_id| setattr(file, AttrChange { bytes: Some(1), clears_set_id, ..AttrChange::default() });
    let give = |file| setattr(file, AttrChange { gid: Some(9), clears_set_id: true, ..AttrChange::default() });
    let cut_by_create = |clears_set_id| match create_as(ROOT, "f", OnExisting::Use, Some(0)) {
        OpBody::Create { dir, name, mode, uid, gid, times, bytes, existing, .. } => {
            OpBody::Create { dir, name, mode, uid, gid, times, bytes, existing, clears_set_id }
        }
        other => panic!("{other:?}"),
    };
    for (kept, lost) in
        [(write(false), write(true)), (cut(false), cut(true)), (cut_by_create(false), cut_by_create(true))]
    {
        bench.ok(chmod(file));
        bench.ok(kept);
        assert_eq!(bench.attr(file).mode, 0o6755);
        bench.ok(lost);
        assert_eq!(bench.attr(file).mode, 0o755);
    }
    bench.ok(chmod(file));
    bench.ok(give(file));
    assert_eq!((bench.attr(file).mode, bench.attr(file).gid), (0o755, 9));
    bench.ok(chmod(dir));
    bench.ok(give(dir));
    assert_eq!((bench.attr(dir).mode, bench.attr(dir).gid), (0o6755, 9), "a directory hands its group down");
}

#[test]
fn links_count_and_the_last_one_takes_the_file() {
    let mut bench = Bench::new();
    let (file, dir) = (bench.file(ROOT, "f"), bench.dir(ROOT, "d"));
    bench.ok(write(file, &[extent(0, 100, seg(1))]));
    assert_eq!(bench.err(link(dir, ROOT, "e")), OpError::IsDirectory);
    assert_eq!(bench.err(link(file, ROOT, "f")), OpError::Exists);
    assert_eq!(bench.err(link(file, ROOT, "d")), OpError::Exists);
    bench.ok(link(file, dir, "g"));
    assert_eq!((bench.attr(file).nlink, bench.attr(file).ctime_ns), (2, bench.wall_ns));
    let before = bench.attr(ROOT);
    let removed = bench.ok(remove(ROOT, "f"));
    assert_eq!(removed, Answer::Dir { before, after: bench.attr(ROOT) });
    assert_eq!((bench.attr(file).nlink, bench.attr(file).ctime_ns), (1, bench.wall_ns));
    assert_eq!(bench.err(rmdir(ROOT, "d")), OpError::NotEmpty);
    assert_eq!(bench.totals().live_bytes, 100);
    bench.ok(remove(dir, "g"));
    assert!(!bench.exists(file));
    assert_eq!(bench.totals().live_bytes, 0);
    bench.ok(rmdir(ROOT, "d"));
    assert_eq!(bench.err(remove(ROOT, "d")), OpError::NoEntry);
    assert_eq!(bench.err(rmdir(ROOT, "d")), OpError::NoEntry);
}

#[test]
fn more_links_than_can_be_counted_are_refused() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let mut txn = Txn::new(&bench.kv, STATE);
    for handle in [ROOT, file] {
        let attr = Attr { nlink: LINKS_MAX, ..bench.attr(handle) };
        txn.put(keys::inode(handle.ino), mesh::record::encode(1, &attr));
    }
    block_on(bench.kv.write(txn.into_batch(), Durability::Buffered)).expect("memory");
    assert_eq!(bench.apply_unchecked(mkdir(ROOT, "d")), Err(OpError::TooManyLinks));
    assert_eq!(bench.apply_unchecked(link(file, ROOT, "g")), Err(OpError::TooManyLinks));
    assert!(bench.apply_unchecked(create(ROOT, "h")).is_ok());
}

#[test]
fn listings_go_on_behind_a_cookie_and_survive_changes() {
    let mut bench = Bench::new();
    for number in 0..10 {
        bench.file(ROOT, &format!("f{number}"));
    }
    let first = read::readdir(&bench.kv, ROOT.ino, 0, 4).expect("memory");
    assert!(first.iter().all(|entry| entry.cookie > 2));
    assert_eq!(first.len(), 4);
    bench.ok(remove(ROOT, "f3"));
    bench.ok(remove(ROOT, "f5"));
    bench.file(ROOT, "new");
    let rest = read::readdir(&bench.kv, ROOT.ino, first[3].cookie, 100).expect("memory");
    let names: Vec<_> = rest.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    assert_eq!(names, ["f4", "f6", "f7", "f8", "f9", "new"]);
}

#[test]
fn paths_and_dumps_of_the_tree() {
    let mut bench = Bench::new();
    let a = bench.dir(ROOT, "a");
    let b = bench.dir(a, "b");
    let file = bench.file(b, "f");
    let path = |bench: &Bench, ino| read::path_of(&bench.kv, ino).expect("memory");
    assert_eq!(path(&bench, ROOT.ino), Some(vec![]));
    assert_eq!(path(&bench, b.ino), Some(vec![b"a".to_vec(), b"b".to_vec()]));
    assert_eq!(path(&bench, file.ino), None);
    bench.ok(rename(a, "b", ROOT, "c"));
    assert_eq!(path(&bench, b.ino), Some(vec![b"c".to_vec()]));
    assert_eq!(read::parent(&bench.kv, b.ino).expect("memory"), Some(ROOT.ino));
    let inos = |after, limit| -> Vec<u64> {
        let page = read::files(&bench.kv, after, limit).expect("memory");
        page.into_iter().map(|attr| attr.handle.ino).collect()
    };
    assert_eq!(inos(0, 3), [ROOT.ino, a.ino, b.ino]);
    assert_eq!(inos(b.ino, 3), [file.ino]);
}
