use std::pin::pin;

use futures_lite::future::{block_on, poll_once, zip};
use strongroom_core::env::Env;
use strongroom_core::storage::{OpenContext, OpenMode, Registry, StorageConstructor, StorageExt as _, StorageUri};

use super::*;
use crate::Dice;
use crate::crash::{CrashOptions, CrashingStorage};

const A: Name = Name::new([0xaa; 16]);
const B: Name = Name::new([0xbb; 16]);

fn fresh() -> FlakyStorage {
    let options = CrashOptions { yields: false, ..CrashOptions::default() };
    FlakyStorage::new(Arc::new(CrashingStorage::new(options)), FlakyOptions::default())
}

async fn is_there(storage: &FlakyStorage, name: Name) -> bool {
    storage.inner.exists(name).await.unwrap()
}

#[test]
fn errors_say_whether_they_had_an_effect_and_say_the_truth() {
    block_on(async {
        let storage = fresh();
        storage.fail_call(1, Fault::Refused(ErrorKind::Unavailable));
        let error = storage.put(A, "a".into()).await.unwrap_err();
        assert_eq!((error.effect(), error.retry()), (Effect::None, Retry::CanHelp));
        assert!(!is_there(&storage, A).await);

        storage.fail_call(1, Fault::Refused(ErrorKind::PermissionDenied));
        assert_eq!(storage.delete(A).await.unwrap_err().retry(), Retry::Useless);

        storage.fail_operation(Operation::PutDurable, 1, Fault::LostRequest);
        assert_eq!(storage.put_durable(A, "a".into()).await.unwrap_err().effect(), Effect::Unknown);
        assert!(!is_there(&storage, A).await);

        storage.fail_operation(Operation::PutDurable, 1, Fault::LostReply);
        assert_eq!(storage.put_durable(A, "a".into()).await.unwrap_err().effect(), Effect::Unknown);
        assert!(is_there(&storage, A).await);

        storage.fail_call(1, Fault::LostReply);
        assert_eq!(storage.get(A, None, 9).await.unwrap_err().effect(), Effect::None);
    });
}

#[test]
fn what_is_late_arrives_after_so_many_calls_or_never() {
    block_on(async {
        let storage = fresh();
        storage.fail_call(1, Fault::Late { calls: 2 });
        storage.put(A, "a".into()).await.unwrap_err();
        assert!(storage.size(A).await.is_err());
        assert_eq!(storage.size(A).await.unwrap(), 1);

        storage.fail_call(1, Fault::Late { calls: 9 });
        storage.delete(A).await.unwrap_err();
        assert_eq!(storage.in_air(), 1);
        storage.deliver().await;
        assert!(!is_there(&storage, A).await);

        storage.fail_call(1, Fault::Late { calls: 1 });
        storage.put(A, "a".into()).await.unwrap_err();
        storage.forget();
        assert!(storage.size(A).await.is_err());
    });
}

#[test]
fn a_put_that_is_delivered_twice_is_answered_exists_or_comes_back_after_its_deletion() {
    block_on(async {
        let storage = fresh();
        storage.fail_call(1, Fault::Duplicate { calls: 0 });
        assert_eq!(storage.put(A, "a".into()).await.unwrap(), Put::Exists);
        assert!(is_there(&storage, A).await);

        storage.fail_call(1, Fault::Duplicate { calls: 2 });
        assert_eq!(storage.put(B, "b".into()).await.unwrap(), Put::Created);
        storage.delete(B).await.unwrap();
        assert_eq!(storage.size(B).await.unwrap(), 1);
    });
}

#[test]
fn a_stale_listing_misses_recent_puts_and_shows_recent_deletes() {
    block_on(async {
        let storage = fresh();

        storage.put(A, "a".into()).await.unwrap();
        assert_eq!(storage.list_all(&[]).await.unwrap(), [A].into());
        storage.put(B, "b".into()).await.unwrap();
        storage.delete(A).await.unwrap();
        storage.fail_operation(Operation::List, 1, Fault::StaleList { calls: 2 });
        assert_eq!(storage.list(&[], None).await.unwrap(), [A]);
        assert_eq!(storage.list(&[], None).await.unwrap(), [B]);
        // Nothing that was not asked for.
        storage.fail_operation(Operation::List, 1, Fault::StaleList { calls: 9 });
        assert_eq!(storage.list(&[0xcc], None).await.unwrap(), []);
        storage.fail_operation(Operation::List, 1, Fault::StaleList { calls: 9 });
        assert_eq!(storage.list(&[], Some(A)).await.unwrap(), []);
    });
}

#[test]
fn a_slow_call_waits_for_others_and_not_for_ever() {
    block_on(async {
        let storage = fresh();
        storage.fail_call(1, Fault::Slow { calls: 2 });
        let mut slow = pin!(storage.put(A, "a".into()));
        assert!(poll_once(&mut slow).await.is_none());
        assert!(storage.size(A).await.is_err());
        assert!(poll_once(&mut slow).await.is_none());
        assert!(storage.size(A).await.is_err());
        assert_eq!(poll_once(&mut slow).await.unwrap().unwrap(), Put::Created);
        // Alone it goes on by itself.
        storage.fail_call(1, Fault::Slow { calls: 1000 });
        assert_eq!(storage.size(A).await.unwrap(), 1);
    });
}

#[test]
fn a_stuck_call_waits_for_its_release_and_can_be_dropped() {
    block_on(async {
        let storage = fresh();
        storage.fail_call(1, Fault::Stuck);
        {
            let mut stuck = pin!(storage.put(A, "a".into()));
            assert!(poll_once(&mut stuck).await.is_none());
            assert_eq!(storage.stuck(), 1);
        }
        assert_eq!(storage.stuck(), 0);
        assert!(!is_there(&storage, A).await);

        storage.fail_call(1, Fault::StuckReply);
        let waiting = async {
            assert!(is_there(&storage, A).await);
            storage.release();
        };
        let (answer, ()) = zip(storage.put(A, "a".into()), waiting).await;
        assert_eq!(answer.unwrap(), Put::Created);

        storage.fail_call(1, Fault::Stuck);
        let (answer, ()) = zip(storage.size(A), async { storage.release() }).await;
        assert_eq!(answer.unwrap(), 1);
    });
}

#[test]
fn the_same_seed_gives_the_same_fate_and_every_rate_its_fault() {
    let run = |seed| {
        let rate = Rate::per_mille(60);
        let rates = Rates {
            errors: rate,
            refusals: rate,
            timeouts: rate,
            ambiguous: rate,
            late: rate,
            duplicates: rate,
            stale_lists: rate,
            slow: rate,
            stuck: Rate::NEVER,
        };
        let storage = fresh();
        let storage = FlakyStorage::new(storage.inner, FlakyOptions { seed, rates, calls_max: 4 });
        block_on(async {
            let mut seen = Vec::new();
            for number in 0..100 {
                let name = Name::new([number; 16]);
                seen.push(format!("{:?}", storage.put(name, "x".into()).await));
                seen.push(format!("{:?}", storage.delete(Name::new([number / 2; 16])).await));
                seen.push(format!("{:?}", storage.list(&[], None).await));
            }
            assert!(storage.faults() > 50, "{}", storage.faults());
            seen
        })
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let mut dice = Dice::new(3);
    for name in Rates::PARAMETERS {
        let mut rates = Rates::default();
        *rates.parameter(name).unwrap() = Rate::ALWAYS;
        assert!(rates.draw(&mut dice, 4).is_some(), "{name}");
    }
    assert_eq!(Rates::default().draw(&mut dice, 4), None);
}

#[test]
fn rates_are_fractions_or_percentages() {
    for (text, rate) in [
        ("0", Rate::NEVER),
        ("1", Rate::ALWAYS),
        ("100%", Rate::ALWAYS),
        ("0.01", Rate::per_mille(10)),
        ("1%", Rate::per_mille(10)),
        ("0.5%", Rate::per_mille(5)),
    ] {
        assert_eq!(text.parse(), Ok(rate), "{text}");
        assert_eq!(rate.to_string().parse(), Ok(rate));
    }
    assert_eq!("0.000001".parse::<Rate>().unwrap().to_string(), "0.0001%");
    for text in ["", "%", "1.1", "101%", "-1", "1e3", ".5", "0.0000001", "0.00001%", "1%%", "1 %"] {
        assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
    }
}

struct Within;

#[async_trait]
impl StorageConstructor for Within {
    async fn open(&self, uri: &StorageUri, _: &OpenContext) -> Result<Arc<dyn Storage>> {
        uri.allow_parameters(&["region"])?;
        assert_eq!(uri.authority(), Some("place"));
        Ok(Arc::new(CrashingStorage::new(CrashOptions::default())))
    }
}

#[test]
fn a_faulty_uri_opens_what_is_within_and_refuses_what_nobody_knows() {
    let mut registry = Registry::new();
    registry.register("within", Within);
    register(&mut registry);
    register(&mut registry); // again, after an application has added its own
    assert_eq!(registry.schemes().collect::<Vec<_>>(), ["faulty+within", "within"]);
    let context = OpenContext::new(Env::deterministic(1)).with_mode(OpenMode::CreateIfMissing);
    let open = |uri: &str| block_on(registry.open(&StorageUri::parse(uri).unwrap(), &context));

    let storage = open("faulty+within://place?seed=7&errors=100%25&region=here").unwrap();
    assert_eq!(block_on(storage.size(A)).unwrap_err().retry(), Retry::CanHelp);
    let idle = open("faulty+within://place").unwrap();
    assert_eq!(block_on(idle.size(A)).unwrap_err().kind(), ErrorKind::NotFound);

    for (uri, said) in [
        ("faulty+within://place?erors=1", "stale-lists"),
        ("faulty+within://place?erors=1", "region"),
        ("faulty+within://place?errors=2", "percentage"),
        ("faulty+within://place?seed=x", "whole number"),
    ] {
        let error = open(uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(said), "{error}");
    }
    let known = PARAMETERS.iter().filter(|name| Rates::default().parameter(name).is_some()).count();
    assert_eq!(known, Rates::PARAMETERS.len());
}
