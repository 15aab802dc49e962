use super::*;

#[test]
fn a_name_moves_and_both_directories_are_answered() {
    let mut bench = Bench::new();
    let (d, file) = (bench.dir(ROOT, "d"), bench.file(ROOT, "f"));
    let (root_before, d_before) = (bench.attr(ROOT), bench.attr(d));
    let answer = bench.ok(rename(ROOT, "f", d, "g"));
    let (from_after, to_after) = (bench.attr(ROOT), bench.attr(d));
    assert_eq!(from_after.mtime_ns, bench.wall_ns);
    assert_eq!(to_after.mtime_ns, bench.wall_ns);
    assert_eq!(bench.attr(file).ctime_ns, bench.wall_ns);
    assert_eq!(answer, Answer::Dirs { from_before: root_before, from_after, to_before: d_before, to_after });
    assert_eq!((bench.names(ROOT), bench.names(d)), (vec!["d".to_string()], vec!["g".to_string()]));
    assert_eq!(bench.err(rename(ROOT, "f", d, "g")), OpError::NoEntry);

    let before = bench.attr(d);
    let answer = bench.ok(rename(d, "g", d, "h"));
    let after = bench.attr(d);
    let (from_before, from_after) = (before.clone(), after.clone());
    assert_eq!(answer, Answer::Dirs { from_before, from_after, to_before: before, to_after: after });
}

#[test]
fn directories_carry_their_links_with_them() {
    let mut bench = Bench::new();
    let (a, b) = (bench.dir(ROOT, "a"), bench.dir(ROOT, "b"));
    let moved = bench.dir(a, "m");
    let links = |bench: &Bench| (bench.attr(ROOT).nlink, bench.attr(a).nlink, bench.attr(b).nlink);
    assert_eq!(links(&bench), (4, 3, 2));
    bench.ok(rename(a, "m", b, "m"));
    assert_eq!(links(&bench), (4, 2, 3));
    assert_eq!(read::parent(&bench.kv, moved.ino).expect("memory"), Some(b.ino));
    // Over an empty directory elsewhere, then over one beside it.
    let replaced = bench.dir(a, "m");
    bench.ok(rename(b, "m", a, "m"));
    assert!(!bench.exists(replaced));
    assert_eq!(links(&bench), (4, 3, 2));
    let beside = bench.dir(a, "n");
    bench.ok(rename(a, "m", a, "n"));
    assert!(!bench.exists(beside) && bench.exists(moved));
    assert_eq!(links(&bench), (4, 3, 2));
}

#[test]
fn what_may_replace_what() {
    let mut bench = Bench::new();
    let (full, empty) = (bench.dir(ROOT, "full"), bench.dir(ROOT, "empty"));
    let (f, g) = (bench.file(ROOT, "f"), bench.file(ROOT, "g"));
    bench.file(full, "x");
    assert_eq!(bench.err(rename(ROOT, "empty", ROOT, "full")), OpError::NotEmpty);
    assert_eq!(bench.err(rename(ROOT, "empty", ROOT, "f")), OpError::NotDirectory);
    assert_eq!(bench.err(rename(ROOT, "f", ROOT, "empty")), OpError::IsDirectory);
    bench.ok(write(g, &[extent(0, 10, seg(1))]));
    bench.ok(rename(ROOT, "f", ROOT, "g"));
    assert!(bench.exists(f) && !bench.exists(g));
    assert_eq!(bench.totals().live_bytes, 0);
    bench.ok(make(ROOT, "l", NewNode::Symlink { target: b"x".to_vec() }));
    bench.ok(rename(ROOT, "l", ROOT, "g"));
    assert!(!bench.exists(f));
    bench.ok(rename(ROOT, "full", ROOT, "empty"));
    assert!(!bench.exists(empty) && bench.exists(full));
    assert_eq!(bench.names(full), ["x"]);
}

#[test]
fn a_directory_never_moves_into_itself() {
    let mut bench = Bench::new();
    let a = bench.dir(ROOT, "a");
    let b = bench.dir(a, "b");
    let c = bench.dir(b, "c");
    for inside in [a, b, c] {
        assert!(matches!(bench.err(rename(ROOT, "a", inside, "x")), OpError::Invalid(_)));
    }
    assert_eq!(bench.err(rename(b, "c", ROOT, "a")), OpError::NotEmpty, "over what it lies in");
    bench.ok(rename(b, "c", ROOT, "c"));
    bench.ok(rename(ROOT, "a", c, "a"));
}

#[test]
fn two_names_of_one_file_stay() {
    let mut bench = Bench::new();
    let (file, other) = (bench.file(ROOT, "f"), bench.file(ROOT, "o"));
    bench.ok(link(file, ROOT, "g"));
    let before = (bench.attr(ROOT), bench.attr(file));
    bench.ok(rename(ROOT, "f", ROOT, "g"));
    bench.ok(rename(ROOT, "f", ROOT, "f"));
    assert_eq!((bench.attr(ROOT), bench.attr(file)), before);
    assert_eq!(bench.names(ROOT).len(), 3);
    bench.ok(rename(ROOT, "o", ROOT, "g"));
    assert_eq!((bench.attr(file).nlink, bench.attr(file).ctime_ns), (1, bench.wall_ns));
    assert!(bench.exists(other));
}
