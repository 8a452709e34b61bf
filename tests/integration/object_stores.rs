//! Stores in buckets: the public interface over sockets that break.
//!
//! `TestS3` is a server of our own in this process, of S3 and of Google Cloud Storage's dialect. What
//! a client and the log make of a broken connection, a lost answer or a refusal is tested here; that
//! other servers answer as ours does, `processes` shows with moto and Azurite.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::{ErrorKind, SeriesAppend, SeriesExt, Store, StoreBuilder, TransactionId};
use tidelog_testkit::{Cell, Failure, HttpFault, S3Operation, TestS3};

use crate::support::{Context, Fallible, rows, runtime, same, sql};

const PATH: &str = "/s/one.series";
/// Stands where secrets do, and must be found nowhere.
const CANARY: &str = "canary-5e1f";

fn builder_at(server: &TestS3, url: &str) -> StoreBuilder {
    let add =
        |all: StoreBuilder, (name, value): (String, String)| all.with_storage_option(name, value);
    server.options().into_iter().fold(Store::builder(url).with_partitions(1), add)
}

fn builder(server: &TestS3) -> StoreBuilder {
    builder_at(server, &server.url("a place/store"))
}

fn servers() -> [TestS3; 2] {
    [TestS3::start().unwrap(), TestS3::start_gcs().unwrap()]
}

/// Append `number`: one to three rows that tell it.
fn append_of(number: i64) -> SeriesAppend {
    let rows = || 0..=number % 3;
    let times = TimestampMicrosecondArray::from_iter_values(rows().map(|i| number * 10 + i));
    let numbers = Int64Array::from_iter_values(rows().map(|_| number));
    let columns: [(&str, ArrayRef); 2] =
        [("time", Arc::new(times.with_timezone("UTC"))), ("number", Arc::new(numbers))];
    let id = TransactionId::from_uuid(uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1));
    SeriesAppend::new(PATH, RecordBatch::try_from_iter(columns).unwrap()).with_transaction(id)
}

/// How many rows of each append a reader sees.
async fn seen(store: &Store) -> Fallible<BTreeMap<i64, i64>> {
    let mut counts = BTreeMap::new();
    for row in rows(store.root().read_series_all(PATH).await).await? {
        match row.last() {
            Some(Cell::Int(number)) => *counts.entry(*number).or_default() += 1,
            other => return Err(format!("not a number: {other:?}")),
        }
    }
    Ok(counts)
}

/// These appends are there, each once, and nothing else.
async fn holds(store: &Store, numbers: impl IntoIterator<Item = i64>) -> Fallible {
    let expected: BTreeMap<i64, i64> = numbers.into_iter().map(|n| (n, n % 3 + 1)).collect();
    let versions: Vec<i64> =
        store.versions(PATH).await.at("versions")?.iter().map(|v| v.version.number()).collect();
    let dense: Vec<i64> = (1..).take(expected.len()).collect();
    same("versions", &dense, &versions)?;
    same("rows by append", &expected, &seen(store).await?)
}

/// All that an error says, to people and to programmers.
fn told(error: &tidelog::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[test]
fn a_store_lives_in_a_bucket() {
    for server in servers() {
        runtime().block_on(async {
            let builder = || builder(&server);
            let missing = builder().open().await.unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
            assert!(server.keys().is_empty(), "opening must not write");
            let store = builder().create().await.unwrap();
            let again = builder().create().await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again:?}");
            for number in 1..=5 {
                store.root().append_series_data_with_options(append_of(number)).await.unwrap();
            }
            holds(&store, 1..=5).await.unwrap();
            let reopened = builder().open_or_create().await.unwrap();
            holds(&reopened, 1..=5).await.unwrap();
            // What another handle does is seen without opening again.
            store.root().append_series_data_with_options(append_of(6)).await.unwrap();
            holds(&reopened, 1..=6).await.unwrap();

            let statement = format!("SELECT count(*) FROM \"{PATH}\" WHERE number <= 2");
            assert_eq!(sql(&store, &statement).await.unwrap(), [vec![Cell::Int(5)]]);
            store.create_directory("/d").await.unwrap();
            store.rename(PATH, "/d/two.series").await.unwrap();
            assert_eq!(reopened.list("/**").await.unwrap().len(), 3);
            reopened.rename("/d/two.series", PATH).await.unwrap();
            store.remove("/d", true).await.unwrap();
            holds(&builder().open().await.unwrap(), 1..=6).await.unwrap();
            let keys = server.keys();
            assert!(keys.iter().all(|key| key.starts_with("a place/store/")), "{keys:?}");

            // Another prefix of the bucket is another store.
            let other = builder_at(&server, &server.url("other")).create().await.unwrap();
            assert!(other.list("/**").await.unwrap().is_empty());
        });
    }
}

#[test]
fn appends_of_two_handles_conflict_and_all_land() {
    for server in servers() {
        runtime().block_on(async {
            let first = builder(&server).create().await.unwrap();
            let second = builder(&server).open().await.unwrap();
            server.set_latency(Duration::from_millis(2));
            let append = |store: &Store, number| {
                let root = store.root();
                async move { root.append_series_data_with_options(append_of(number)).await }
            };
            let all = (1..=24).map(|n| append(if n % 2 == 0 { &first } else { &second }, n));
            futures::future::try_join_all(all).await.unwrap();
            holds(&builder(&server).open().await.unwrap(), 1..=24).await.unwrap();
        });
    }
}

/// What a caller does after an append failed: repeat it with its transaction id, which also settles
/// an unknown outcome. What is said not to be stored is not there before.
async fn append_surely(
    server: &TestS3,
    other: StoreBuilder,
    store: &Store,
    number: i64,
) -> Fallible {
    let root = store.root();
    let Err(error) = root.append_series_data_with_options(append_of(number)).await else {
        return Ok(());
    };
    server.heal();
    if told(&error).contains(tidelog_testkit::s3::SECRET_ACCESS_KEY) {
        return Err(format!("tells the secret: {error:?}"));
    }
    if error.kind() != ErrorKind::OutcomeUnknown {
        let fresh = other.open().await.at("opening after a failure")?;
        if fresh.describe(PATH).await.is_ok() && seen(&fresh).await?.contains_key(&number) {
            return Err(format!("said not to be stored, but is: {error:?}"));
        }
    }
    root.append_series_data_with_options(append_of(number)).await.at("repeating").map(|_| ())
}

/// Makes the 1st, 2nd, 3rd … request of an append fail, each in a store of its own, until there is
/// none left to fail.
fn fail_each_request(server: &TestS3, failure: Failure, after: bool) -> Fallible {
    runtime().block_on(async {
        for nth in 1.. {
            let builder = || builder_at(server, &server.url(&format!("{nth}")));
            let first = builder().create().await.at("creating")?;
            first.root().append_series_data_with_options(append_of(1)).await.at("appending")?;
            // The first append of a handle makes the most requests.
            let store = builder().open().await.at("opening")?;
            let before = server.injected();
            let fault = HttpFault::new(failure).nth(nth);
            server.inject(if after { fault.after() } else { fault });
            append_surely(server, builder(), &store, 2)
                .await
                .map_err(|error| format!("request {nth}: {error}"))?;
            server.heal();
            for store in [&first, &store, &builder().open().await.at("opening again")?] {
                holds(store, 1..=2).await.map_err(|error| format!("request {nth}: {error}"))?;
            }
            if server.injected() == before {
                return if nth > 4 { Ok(()) } else { Err(format!("only {nth} requests")) };
            }
        }
        Ok(())
    })
}

/// Fails each request of an append in each of these ways, before or after it takes effect.
fn fail_each(on_s3: &[Failure], on_gcs: &[Failure], after: bool) {
    let try_all = |start: fn() -> std::io::Result<TestS3>, failures: &[Failure]| {
        for failure in failures {
            fail_each_request(&start().unwrap(), *failure, after)
                .unwrap_or_else(|error| panic!("{failure:?}: {error}"));
        }
    };
    try_all(TestS3::start, on_s3);
    try_all(TestS3::start_gcs, on_gcs);
}

/// Ways to fail that also make sense once a request has taken effect.
const FAILURES: [Failure; 6] = [
    Failure::Reset,
    Failure::Close,
    Failure::Status(500),
    Failure::Status(503),
    Failure::Status(409),
    Failure::Status(412),
];

#[test]
fn an_append_is_stored_once_whichever_of_its_requests_fails() {
    let failures = [FAILURES.as_slice(), &[Failure::HalfBody]].concat();
    fail_each(&failures, &[Failure::Reset, Failure::Status(412)], false);
}

#[test]
fn an_append_is_stored_once_whichever_of_its_answers_is_lost() {
    fail_each(&FAILURES, &[Failure::Close, Failure::Status(500)], true);
}

/// An append waits for three round trips: for the newest commits, for data file and log part side by
/// side, for the commit. A handle's first one also proves conditional puts and reads the series.
#[test]
fn an_append_waits_for_few_round_trips() {
    for server in servers() {
        runtime().block_on(async {
            let store = builder(&server).create().await.unwrap();
            for number in 1..=3 {
                store.root().append_series_data_with_options(append_of(number)).await.unwrap();
            }
            server.set_latency(Duration::from_millis(30));
            server.reset_counts();
            store.root().append_series_data_with_options(append_of(4)).await.unwrap();
            let counts = server.counts();
            assert!(counts.total <= 4 && counts.round_trips <= 3, "{counts:?}");
        });
    }
}

#[test]
fn a_commit_that_never_gets_through_is_unknown_and_settled_by_repeating() {
    for server in servers() {
        for (failure, after) in [(Failure::Reset, false), (Failure::Close, true)] {
            runtime().block_on(async {
                let store = builder(&server).open_or_create().await.unwrap();
                let number = i64::try_from(server.injected()).unwrap() + 1;
                let mut numbers: Vec<i64> = match store.describe(PATH).await {
                    Ok(_) => seen(&store).await.unwrap().into_keys().collect(),
                    Err(_) => Vec::new(),
                };
                store.root().append_series_data_with_options(append_of(number)).await.unwrap();
                numbers.push(number);
                // The commit's puts fail, and so does reading back what became of them; before,
                // the newest commits are looked for.
                let put = HttpFault::new(failure).on(S3Operation::Put).at_key("_delta_log").every();
                server.inject(if after { put.after() } else { put });
                let get = HttpFault::new(Failure::Reset).on(S3Operation::Get).at_key("_delta_log");
                server.inject(get.nth(2).for_good());
                let append = append_of(number + 1);
                let unknown =
                    store.root().append_series_data_with_options(append.clone()).await.unwrap_err();
                assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown:?}");
                server.heal();
                store.root().append_series_data_with_options(append).await.unwrap();
                numbers.push(number + 1);
                holds(&builder(&server).open().await.unwrap(), numbers).await.unwrap();
            });
        }
    }
}

#[test]
fn appends_and_reads_get_through_random_faults() {
    for (seed, server) in (1..).zip(servers()) {
        runtime().block_on(async {
            let first = builder(&server).create().await.unwrap();
            let second = builder(&server).open().await.unwrap();
            for number in 1..=40 {
                let store = if number % 3 == 0 { &second } else { &first };
                server.inject_randomly(seed * 1_000 + u64::try_from(number).unwrap(), 0.12);
                append_surely(&server, builder(&server), store, number).await.unwrap();
                if number % 8 == 0 {
                    holds(&first, 1..=number).await.unwrap();
                }
            }
            assert!(server.injected() > 20, "{}", server.injected());
            server.heal();
            holds(&builder(&server).open().await.unwrap(), 1..=40).await.unwrap();
        });
    }
}

/// The kind of the error, and that it tells the remedy and no secret.
fn refused<T>(result: tidelog::Result<T>, kind: ErrorKind, remedy: &str) {
    let error = result.err().expect("it must be refused");
    let text = told(&error);
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(remedy), "{remedy}: {text}");
    assert!(!text.contains(CANARY), "{text}");
}

#[test]
fn refusals_of_a_server_are_told_apart_and_tell_no_secret() {
    let server = TestS3::start().unwrap();
    runtime().block_on(async {
        let store = builder(&server).create().await.unwrap();
        store.root().append_series_data_with_options(append_of(1)).await.unwrap();
        // Wrong credentials.
        let wrong = |name: &'static str| builder(&server).with_storage_option(name, CANARY);
        let denied = ErrorKind::PermissionDenied;
        let remedy = "AWS_SECRET_ACCESS_KEY";
        for name in ["aws_secret_access_key", "aws_access_key_id"] {
            let opened = wrong(name).open().await;
            if name == "aws_secret_access_key" {
                refused(opened, denied, remedy);
            } else {
                assert_eq!(opened.unwrap_err().kind(), denied);
            }
            assert!(!format!("{:?}", wrong(name)).contains(CANARY));
        }
        refused(wrong("aws_secret_access_key").create().await, denied, remedy);
        refused(wrong("aws_secret_access_key").open_or_create().await, denied, remedy);
        // No bucket.
        let nowhere = || builder_at(&server, &server.url_in("nowhere", "p"));
        refused(nowhere().open().await, ErrorKind::NotFound, "there is no bucket \"nowhere\"");
        refused(nowhere().create().await, ErrorKind::NotFound, "there is no bucket");
        refused(nowhere().open_or_create().await, ErrorKind::NotFound, "there is no bucket");
        // A bucket that may only be read.
        server.set_read_only(true);
        let other = builder_at(&server, &server.url("other"));
        refused(other.create().await, denied, "do not allow");
        let store = builder(&server).open().await.unwrap();
        holds(&store, [1]).await.unwrap();
        let append = store.root().append_series_data_with_options(append_of(2)).await;
        refused(append, denied, "do not allow");
        refused(store.create_directory("/d").await, denied, "do not allow");
        server.set_read_only(false);
        store.root().append_series_data_with_options(append_of(2)).await.unwrap();
        holds(&store, [1, 2]).await.unwrap();
    });
}

#[test]
fn a_server_that_ignores_conditions_is_refused_for_writing() {
    for server in servers() {
        runtime().block_on(async {
            let store = builder(&server).create().await.unwrap();
            store.root().append_series_data_with_options(append_of(1)).await.unwrap();
            server.set_ignore_conditions(true);
            let other = builder_at(&server, &server.url("other"));
            refused(other.create().await, ErrorKind::Unsupported, "conditional puts");
            let store = builder(&server).open().await.unwrap();
            holds(&store, [1]).await.unwrap();
            let append = store.root().append_series_data_with_options(append_of(2)).await;
            refused(append, ErrorKind::Unsupported, "conditional puts");
        });
    }
}

#[test]
fn wrong_locations_and_options_are_refused_without_their_secrets() {
    runtime().block_on(async {
        for location in [
            format!("s3://id:{CANARY}@bucket/p"),
            format!("s3://bucket/p?secret_access_key={CANARY}"),
            format!("az://container?sas_token={CANARY}"),
            format!("ftp://{CANARY}@host/"),
        ] {
            let builder = Store::builder(&location);
            assert!(!format!("{builder:?}").contains(CANARY));
            refused(builder.open().await, ErrorKind::InvalidInput, "");
        }
        for (location, name) in [
            ("s3://bucket", "no_such_option"),
            ("s3://bucket?endpoint=http://example.com", "aws_secret_access_key"),
            ("gs://bucket", "google_service_account_key"),
            ("az://container", "azure_storage_account_key"),
            ("memory://", "aws_secret_access_key"),
            ("/nonexistent", "aws_secret_access_key"),
        ] {
            let builder = Store::builder(location).with_storage_option(name, CANARY);
            refused(builder.open().await, ErrorKind::InvalidInput, "");
        }
    });
}

#[test]
fn a_server_that_is_down_is_unavailable() {
    let server = TestS3::start().unwrap();
    runtime().block_on(async {
        let store = builder(&server).create().await.unwrap();
        store.root().append_series_data_with_options(append_of(1)).await.unwrap();
        server.inject(HttpFault::new(Failure::Close).every());
        let append = store.root().append_series_data_with_options(append_of(2)).await;
        refused(append, ErrorKind::Unavailable, "");
        refused(builder(&server).open().await, ErrorKind::Unavailable, "");
        let read = store.root().read_series_all(PATH).await;
        let read = match read {
            Ok(stream) => stream.try_collect::<Vec<_>>().await.map(|_| ()),
            Err(error) => Err(error),
        };
        refused(read, ErrorKind::Unavailable, "");
        server.heal();
        store.root().append_series_data_with_options(append_of(2)).await.unwrap();
        holds(&store, [1, 2]).await.unwrap();
    });
}
