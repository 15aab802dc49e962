use super::*;
use mesh::record;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[test]
fn nothing_works_before_the_format_and_the_format_works_once() {
    let mut bench = Bench::bare();
    assert_eq!(check_invariants(&bench.kv), Ok(()));
    assert_eq!(read::roles(&bench.kv).expect("memory"), None);
    assert_eq!(bench.err(mkdir(ROOT, "a")), OpError::Format("not formatted".into()));
    let Answer::Roles(roles) = bench.ok(OpBody::Format { cloudfs: 9, preferred: CloudId::B }) else {
        panic!("a format answers the roles");
    };
    assert_eq!((roles.epoch, roles.active, roles.preferred), (Epoch(1), CloudId::B, CloudId::B));
    let root = bench.attr(ROOT);
    assert_eq!((root.mode, root.uid, root.nlink, root.mtime_ns), (0o1777, 0, 2, bench.wall_ns + 1));
    assert_eq!(read::cloudfs_number(&bench.kv).expect("memory"), Some(9));
    let again = bench.err(OpBody::Format { cloudfs: 10, preferred: CloudId::A });
    assert_eq!(again, OpError::Format("already formatted".into()));
}

#[test]
fn an_unreadable_operation_is_answered_and_changes_nothing() {
    let bench = Bench::new();
    let newer = record::encode(ops::OP_VERSION + 1, &"whatever");
    let machine = CloudFs::new(Arc::new(|| {}), Limits::default());
    for op in [&b""[..], b"\x01", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let mut txn = Txn::new(&bench.kv, STATE);
        let answer = machine.apply(&mut txn, AMS, op).expect("the tables are well");
        assert!(matches!(decode_answer(&answer), Ok(Err(OpError::Unreadable(_)))), "{op:?}");
        assert!(txn.into_batch().is_empty());
    }
    // Others may know what a newer one means: this replica must not go on without it.
    assert!(machine.apply(&mut Txn::new(&bench.kv, STATE), AMS, &newer).is_err());
}

#[test]
fn an_operation_in_another_filers_name_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let machine = CloudFs::new(Arc::new(|| {}), Limits::default());
    let op = encode_op(&Op { filer: AMS, wall_ns: 99_000, body: create(ROOT, "a") });
    let mut txn = Txn::new(&bench.kv, STATE);
    let answer = machine.apply(&mut txn, FilerId(AMS.0 + 1), &op).expect("the tables are well");
    let said = decode_answer(&answer).expect("readable").expect_err("refused").to_string();
    assert!(said.contains("in the name of filer"), "{said}");
    assert!(txn.into_batch().is_empty());
}

#[test]
fn the_first_secret_stays_and_is_never_shown() {
    let mut bench = Bench::new();
    assert_eq!(door_secret(&bench.kv).expect("memory"), None);
    let [first, second] = [1, 2].map(|seed| DoorSecret::draw(&mesh::clock::SeededRandom::new(seed)));
    assert!(first != second && *first.bytes() != [0; SECRET_BYTES]);
    assert_eq!(bench.ok(OpBody::KeepSecret { secret: first.clone() }), Answer::Done);
    let offer = OpBody::KeepSecret { secret: second };
    assert_eq!(format!("{offer:?}"), "KeepSecret { secret: DoorSecret(..) }");
    assert_eq!(bench.ok(offer), Answer::Done);
    assert_eq!(door_secret(&bench.kv).expect("memory"), Some(first));
}

#[test]
fn a_damaged_row_stops_the_replica_instead_of_being_believed() {
    let mut bench = Bench::new();
    bench.file(ROOT, "a");
    let mut txn = Txn::new(&bench.kv, STATE);
    txn.put(keys::inode(ROOT.ino), vec![1, 2, 3]);
    let op = Op { filer: AMS, wall_ns: 0, body: create(ROOT, "b") };
    assert!(apply_op(&mut txn, &op, Limits::default()).is_err());
}

#[test]
fn the_hook_is_told_when_other_roles_may_be_visible() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let machine = CloudFs::new(Arc::new(move || _ = count.fetch_add(1, Relaxed)), Limits::default());
    let bench = Bench::new();
    let news_of = |body, snapshot| {
        let before = told.load(Relaxed);
        let mut txn = Txn::new(&bench.kv, STATE);
        let op = encode_op(&Op { filer: AMS, wall_ns: 5_000, body });
        machine.apply(&mut txn, AMS, &op).expect("the tables are well");
        assert_eq!(told.load(Relaxed), before, "nothing is visible yet");
        machine.applied(1, snapshot);
        told.load(Relaxed) - before
    };
    assert_eq!(news_of(mkdir(ROOT, "d"), false), 0);
    let activate = OpBody::Activate { to: CloudId::B, epoch: bench.roles().epoch, by: "operator".into() };
    assert_eq!(news_of(activate, false), 1);
    assert_eq!(news_of(mkdir(ROOT, "d"), false), 0, "it was told already");
    assert_eq!(news_of(mkdir(ROOT, "d"), true), 1, "with a new state come new roles");
}

#[test]
fn several_operations_make_one_change() {
    let bench = Bench::new();
    let mut txn = Txn::new(&bench.kv, STATE);
    let limits = Limits::default();
    let mut apply = |body| apply_op(&mut txn, &Op { filer: AMS, wall_ns: 5_000, body }, limits).expect("memory");
    let dir = handle(apply(mkdir(ROOT, "d")).expect("made"));
    let file = handle(apply(create(dir, "f")).expect("made"));
    apply(write(file, &[extent(0, 10, seg(1))])).expect("written");
    assert_eq!(apply(rmdir(ROOT, "d")), Err(OpError::NotEmpty));
    apply(remove(dir, "f")).expect("removed");
    apply(rmdir(ROOT, "d")).expect("removed");
    assert_eq!(read::readdir(&txn, ROOT.ino, 0, 10).expect("memory"), []);
    block_on(bench.kv.write(txn.into_batch(), Durability::Buffered)).expect("memory");
    assert_eq!(check_invariants(&bench.kv), Ok(()));
    assert_eq!(bench.totals(), Totals { inodes: 1, live_bytes: 0, segments: 1, ..Totals::default() });
}

#[test]
fn times_never_run_backwards() {
    let mut bench = Bench::new();
    bench.wall_ns = 1_000_000;
    let first = bench.file(ROOT, "a");
    bench.wall_ns = 500;
    let second = bench.file(ROOT, "b");
    assert_eq!(bench.attr(second).ctime_ns, bench.attr(first).ctime_ns + 1);
    assert_eq!(read::newest_ns(&bench.kv).expect("memory"), bench.attr(second).ctime_ns);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "a");
    bench.ok(write(file, &[extent(0, 10, seg(1))]));
    for key in [
        keys::inode(file.ino),
        keys::name(ROOT.ino, b"a"),
        keys::cookie(ROOT.ino, 3),
        keys::extent(file.ino, 0),
        keys::segment(seg(1)),
        keys::roles(),
        keys::counters(),
    ] {
        let damaged = MemoryKv::default();
        let mut txn = Txn::new(&bench.kv, STATE);
        txn.delete(key.clone());
        let rows = txn.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), 1_000, false).expect("memory");
        let mut batch = mesh::kv::Batch::default();
        rows.into_iter().for_each(|(key, value)| batch.put(STATE, key, value));
        block_on(damaged.write(batch, Durability::Buffered)).expect("memory");
        assert!(check_invariants(&damaged).is_err(), "without the key {key:02x?}");
    }
}
