use super::*;
use crate::actors::health::{CloudHealth, Views};
use mesh::{FilerId, clock::SeededRandom};
use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use storage::{
    cloud::{Listed, Page, Proof},
    cloudfs::Roles,
    health,
    ids::Epoch,
    segment::{HEADER_BYTES, OBJECT_BYTES_MAX, Packer},
};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

const FILE: Handle = Handle { ino: 7, generation: 1 };
/// How long the cloud takes for an answer, in milliseconds.
const ANSWER_MS: u64 = 5;
/// How long for one that is late: as long as counts as slow, and as a call without a body may take.
const LATE_MS: u64 = 10_000;

fn segment(number: u64) -> SegmentId {
    SegmentId { filer: FilerId(1), number }
}

fn header(segment: SegmentId) -> Header {
    Header { cloudfs: 9, segment }
}

/// The object of every segment here: one frame.
fn object(of: SegmentId) -> Bytes {
    let (mut packer, _) = Packer::new(header(of));
    packer.pack(FILE, 0, 5, Bytes::from_static(b"data"));
    packer.seal().body
}

/// Where that frame begins in it.
const AT: u32 = HEADER_BYTES as u32;

/// The place of that frame.
fn place(of: SegmentId) -> FramePlace {
    let (mut packer, _) = Packer::new(header(of));
    FramePlace::of(&packer.pack(FILE, 0, 5, Bytes::from_static(b"data")).extent)
}

/// What a cloud does.
#[derive(Clone, Debug)]
enum Mood {
    Works,
    Fails(CloudError),
    Panics,
    /// Never answers.
    Hangs,
    /// Gives that after [`LATE_MS`].
    Late(Result<(), CloudError>),
    /// Has this in place of every object.
    Gives(Bytes),
    /// Says of every object that it has so many bytes.
    Claims(u64),
}

/// A cloud that has every segment, in a mood.
struct Moody {
    mood: Mutex<Mood>,
    calls: AtomicU64,
}

impl Moody {
    /// Gives what it has in place of an object, if anything.
    async fn begin(&self) -> Result<Option<Bytes>, CloudError> {
        self.calls.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(ANSWER_MS)).await;
        let mood = self.mood.lock().expect("no test holds it").clone();
        match mood {
            Mood::Works | Mood::Claims(_) => Ok(None),
            Mood::Gives(object) => Ok(Some(object)),
            Mood::Fails(error) => Err(error),
            Mood::Panics => panic!("an error that nobody has foreseen"),
            Mood::Hangs => std::future::pending().await,
            Mood::Late(answer) => {
                sleep(Duration::from_millis(LATE_MS)).await;
                answer.map(|()| None)
            }
        }
    }
}

#[async_trait::async_trait]
impl Cloud for Moody {
    async fn put(&self, _: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        self.begin().await?;
        Ok(Receipt { md5, bytes: body.len() as u64, proof: Proof::Answer })
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError> {
        let instead = self.begin().await?;
        let object = || SegmentId::from_key(key).map_or_else(|| Bytes::from_static(PROBE), object);
        Ok(instead.unwrap_or_else(object).slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        self.begin().await?;
        let bytes = match *self.mood.lock().expect("no test holds it") {
            Mood::Claims(bytes) => bytes,
            _ => object(SegmentId::from_key(key).expect("no other is asked for")).len() as u64,
        };
        Ok(Listed { key: key.into(), bytes, md5: None })
    }

    async fn delete(&self, _: &str) -> Result<(), CloudError> {
        self.begin().await.map(drop)
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<Page, CloudError> {
        unreachable!("the connector has no use for it")
    }
}

/// A connector and its health, on virtual time.
struct Bench {
    cloud: Arc<Moody>,
    connector: Addr<ConnectorActor>,
    health: Addr<HealthActor>,
}

impl Bench {
    fn run(test: impl AsyncFnOnce(Bench)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        LocalSet::new().block_on(&runtime, async {
            let cloud = Arc::new(Moody { mood: Mutex::new(Mood::Works), calls: AtomicU64::new(0) });
            let random = Arc::new(SeededRandom::new(1));
            let health = HealthActor::new(FilerId(1), health::Settings::default(), random.clone()).start();
            let connector =
                ConnectorActor::new(CloudId::A, cloud.clone(), Settings::default(), health.clone(), random).start();
            test(Bench { cloud, connector, health }).await;
        });
    }

    fn mood(&self, mood: Mood) {
        *self.cloud.mood.lock().expect("no test holds it") = mood;
    }

    fn calls(&self) -> u64 {
        self.cloud.calls.load(Relaxed)
    }

    async fn seen(&self) -> CloudHealth {
        let [seen, _] = self.health.send(Views).await.expect("it runs");
        seen
    }

    async fn put(&self, number: u64) -> Result<(), AttemptError> {
        let (segment, body) = (segment(number), object(segment(number)));
        let md5 = Md5::of(&body);
        self.connector.send(Put { segment, body, md5 }).await.expect("it runs").map(drop)
    }

    async fn get(&self, number: u64) -> Result<(), AttemptError> {
        self.get_of(number, &object(segment(number))).await
    }

    /// Reads the frame where this is the object on record.
    async fn get_of(&self, number: u64, object: &Bytes) -> Result<(), AttemptError> {
        let of = header(segment(number));
        let frames = vec![place(of.segment)];
        let get = GetFrames { of, file: FILE, frames, bytes: object.len() as u64, md5: Md5::of(object) };
        self.connector.send(get).await.expect("it runs").map(drop)
    }

    async fn find(&self, number: u64) -> Result<Option<Bytes>, AttemptError> {
        self.connector.send(FindObject { of: header(segment(number)) }).await.expect("it runs")
    }

    async fn get_object(&self, number: u64) -> Result<(), AttemptError> {
        let (segment, body) = (segment(number), object(segment(number)));
        let get = GetObject { segment, bytes: body.len() as u64, md5: Md5::of(&body) };
        self.connector.send(get).await.expect("it runs").map(drop)
    }

    async fn delete(&self, number: u64) -> Result<(), AttemptError> {
        self.connector.send(Delete { segment: segment(number) }).await.expect("it runs")
    }

    /// Every call of the connector but the probe, each on a piece of its own.
    async fn every_call(&self) -> [Result<(), AttemptError>; 5] {
        let found = self.find(5).await.map(drop);
        [self.put(1).await, self.get(2).await, self.get_object(3).await, self.delete(4).await, found]
    }

    async fn roles(&self, state: CloudState) {
        let roles = Roles::new(Epoch(2), CloudId::B, CloudId::A, [state, CloudState::Healthy], 0);
        self.connector.send(RolesChanged(roles)).await.expect("it runs");
    }
}

fn unforeseen() -> [CloudError; 5] {
    let attempted = || "cloud a".to_string();
    [
        CloudError::Failed { attempted: attempted(), why: "418 I'm a teapot".into() },
        CloudError::Failed { attempted: attempted(), why: String::new() },
        CloudError::Denied { attempted: attempted(), why: "451 Unavailable For Legal Reasons".into() },
        CloudError::TimedOut { attempted: attempted(), after_ms: u64::MAX },
        CloudError::Corrupt { key: String::new(), expected: "\u{0}".into(), got: "x".repeat(100_000) },
    ]
}

/// Scene 7: at every call an error that nobody has seen before.
#[test]
fn an_unforeseen_error_is_one_counted_failure_of_any_call_and_shown() {
    for error in unforeseen() {
        Bench::run(async |bench| {
            bench.mood(Mood::Fails(error.clone()));
            for (call, got) in bench.every_call().await.into_iter().enumerate() {
                // A delete's failure is shown, and counts on no piece; all count for the piece's own turns.
                let expected = AttemptError::Failed { cloud: CloudId::A, source: error.clone(), in_a_row: 1 };
                assert_eq!(got, Err(expected), "call {call}");
            }
            let seen = bench.seen().await;
            assert_eq!((bench.calls(), seen.failures_total), (5, 5), "{error}: each attempt is made and counted once");
            assert_eq!(seen.last_failure, Some(error.to_string()));
            assert_eq!(seen.view.failures, 1);
            let probed = bench.connector.send(Probe { filer: FilerId(1) }).await.expect("it runs");
            assert_eq!(probed, Err(error.clone()));
            bench.mood(Mood::Works);
            assert_eq!(bench.every_call().await, [const { Ok(()) }; 5], "after {error}");
            assert_eq!(bench.seen().await.view.failures, 0);
        });
    }
}

#[test]
fn a_panic_in_a_clouds_client_is_a_failure_like_any_other() {
    Bench::run(async |bench| {
        bench.mood(Mood::Panics);
        for got in bench.every_call().await {
            assert!(matches!(got, Err(AttemptError::Failed { in_a_row: 1, .. })), "{got:?}");
        }
        assert_eq!(bench.seen().await.failures_total, 5);
        bench.mood(Mood::Works);
        assert_eq!(bench.every_call().await, [const { Ok(()) }; 5]);
    });
}

/// A right frame of another segment is as wrong as a damaged one; but what is on record with its MD5 is no cloud's mistake.
#[test]
fn a_wrong_frame_is_the_clouds_failure_unless_the_object_on_record_has_it() {
    Bench::run(async |bench| {
        let (right, wrong) = (object(segment(1)), object(segment(2)));
        bench.mood(Mood::Gives(wrong.clone()));
        let got = bench.get_of(1, &right).await;
        let Err(AttemptError::Failed { source: CloudError::Corrupt { .. }, in_a_row: 1, .. }) = got else {
            panic!("{got:?}")
        };
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (2, 1), "the frame, the object: one attempt");
        bench.mood(Mood::Works);
        assert_eq!(bench.get(1).await, Ok(()));
        bench.mood(Mood::Gives(wrong.clone()));
        let got = bench.get_of(1, &wrong).await;
        assert!(matches!(got, Err(AttemptError::Lost { at: AT, .. })), "{got:?}");
        let calls = bench.calls();
        let cut = right.slice(..place(segment(1)).end() as usize - 1);
        let got = bench.get_of(1, &cut).await;
        assert!(matches!(got, Err(AttemptError::Lost { at: AT, .. })), "behind the end of the object: {got:?}");
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (calls, 1), "no cloud is asked for that");
    });
}

#[test]
fn an_object_that_is_looked_for_and_not_there_is_an_answer() {
    Bench::run(async |bench| {
        assert_eq!(bench.find(1).await, Ok(Some(object(segment(1)))));
        bench.mood(Mood::Fails(CloudError::NotFound { key: segment(1).key() }));
        assert_eq!(bench.find(1).await, Ok(None));
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (3, 0));
        assert!(bench.get(1).await.is_err());
        assert_eq!(bench.seen().await.failures_total, 1);
    });
}

/// What a cloud gives in place of a segment may have been damaged there or on its way: the next answer may be right.
#[test]
fn an_object_that_is_looked_for_and_comes_damaged_is_a_failure_and_no_answer() {
    Bench::run(async |bench| {
        let right = object(segment(1));
        for at in 0..right.len() {
            let mut wrong = right.to_vec();
            wrong[at] ^= 4;
            bench.mood(Mood::Gives(wrong.into()));
            let got = bench.find(1).await;
            let Err(AttemptError::Failed { source: CloudError::Corrupt { .. }, .. }) = got else {
                panic!("byte {at}: {got:?}")
            };
        }
        assert_eq!(bench.seen().await.failures_total, right.len() as u64);
        bench.mood(Mood::Works);
        assert_eq!(bench.find(1).await, Ok(Some(right)));
    });
}

/// What is found is read into memory as a whole.
#[test]
fn an_object_longer_than_any_segment_is_not_what_is_looked_for_and_not_read() {
    Bench::run(async |bench| {
        for bytes in [OBJECT_BYTES_MAX + 1, u64::MAX] {
            bench.mood(Mood::Claims(bytes));
            assert_eq!(bench.find(1).await, Ok(None));
        }
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (2, 0), "nothing but its length is asked for");
    });
}

/// One client's large read was 160 failures within milliseconds.
#[test]
fn a_large_read_is_a_few_attempts_and_the_others_share_their_failure() {
    Bench::run(async |bench| {
        let teapot = unforeseen()[0].clone();
        bench.mood(Mood::Fails(teapot.clone()));
        let start = Instant::now();
        for got in futures::future::join_all((0..200).map(|_| bench.get(1))).await {
            let Err(AttemptError::Failed { source, .. }) = got else { panic!("{got:?}") };
            assert_eq!(source, teapot);
        }
        assert_eq!((bench.calls(), bench.seen().await.view.failures), (4, 4));
        // As many as before ask again and again: exactly 160 attempts are 160 failures, and take a while.
        while bench.seen().await.view.failures < 160 {
            futures::future::join_all((0..200).map(|_| bench.get(1))).await;
            assert_eq!(bench.calls(), u64::from(bench.seen().await.view.failures), "each is counted once");
        }
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (160, 160));
        assert!(start.elapsed() > Duration::from_secs(70), "{:?}", start.elapsed());
        bench.mood(Mood::Works);
        assert!(futures::future::join_all((0..200).map(|_| bench.get(1))).await.into_iter().all(|got| got.is_ok()));
        assert_eq!(bench.seen().await.view.failures, 0);
    });
}

/// A cloud that has lost the permission to delete, or keeps objects by a policy, is whole: to trip it, and to take it back as
/// its probes succeed, and to trip it again would go on for ever.
#[test]
fn deletes_that_fail_are_shown_and_trip_nothing() {
    Bench::run(async |bench| {
        let denied = CloudError::Denied { attempted: "deleting".into(), why: "403 AccessDenied".into() };
        bench.mood(Mood::Fails(denied.clone()));
        for _ in 0..200 {
            assert!(bench.delete(1).await.is_err());
        }
        let seen = bench.seen().await;
        assert_eq!((seen.failures_total, seen.view.failures, seen.view.reachable), (200, 0, None));
        assert_eq!(seen.last_failure, Some(denied.to_string()));
        bench.mood(Mood::Works);
        assert_eq!(bench.delete(1).await, Ok(()));
        assert_eq!(bench.seen().await.view.reachable, None, "they say nothing of the data, either way");
    });
}

/// In quiet hours nothing but the sweep asks a cloud for anything.
#[test]
fn deletes_that_hang_are_no_brown_out() {
    Bench::run(async |bench| {
        let late = CloudError::TimedOut { attempted: "deleting".into(), after_ms: LATE_MS };
        for answer in [Err(late), Ok(())] {
            bench.mood(Mood::Late(answer.clone()));
            for number in 0..20 {
                assert_eq!(bench.delete(number).await.is_ok(), answer.is_ok());
            }
            assert!(!bench.seen().await.view.slow, "slow deletes: {answer:?}");
        }
        // Nor do quick ones hide that all else is slow.
        bench.mood(Mood::Late(Ok(())));
        assert_eq!(bench.put(1).await, Ok(()));
        bench.mood(Mood::Works);
        assert_eq!(bench.delete(2).await, Ok(()));
        assert!(bench.seen().await.view.slow);
        assert_eq!(bench.put(1).await, Ok(()));
        assert!(!bench.seen().await.view.slow);
    });
}

/// A refusal to try is no failure, whether the attempt was under way or waited for its turn.
#[test]
fn when_the_cloud_fails_all_is_given_up_and_nothing_of_it_counted() {
    Bench::run(async |bench| {
        bench.mood(Mood::Fails(unforeseen()[0].clone()));
        assert!(bench.get(1).await.is_err());
        bench.mood(Mood::Hangs);
        let under_way = futures::future::join_all((0..10).map(|_| bench.get(2)));
        let waiting = futures::future::join_all([bench.get(1), bench.get(1)]);
        let puts = futures::future::join_all([bench.put(1), bench.put(3)]);
        let judged = async {
            sleep(Duration::from_secs(5)).await;
            bench.roles(CloudState::Failed).await;
        };
        let (under_way, waiting, puts, ()) = futures::join!(under_way, waiting, puts, judged);
        for got in under_way.into_iter().chain(waiting).chain(puts) {
            assert_eq!(got, Err(AttemptError::NotTried(CloudId::A)));
        }
        let calls = bench.calls();
        assert_eq!(bench.put(1).await, Err(AttemptError::NotTried(CloudId::A)));
        assert_eq!((bench.calls(), bench.seen().await.failures_total), (calls, 1));
        bench.mood(Mood::Works);
        bench.roles(CloudState::Resyncing).await;
        assert_eq!(bench.get(1).await, Ok(()), "at once: what was before is no reason to wait");
    });
}
