//! The server against the clients of `object_store`, as Tidelog sets them up and as they are.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tidelog_core::{Env, ErrorKind};
use tidelog_storage::error::kind_of;
use tidelog_storage::object_store::aws::{AmazonS3, AmazonS3Builder};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use tidelog_storage::{FileSystem, Location, OsFileSystem, StorageOptions};

use super::*;

/// A client as Tidelog sets it up.
fn client_at(server: &TestS3, url: &str) -> Arc<dyn ObjectStore> {
    let add = |all: StorageOptions, (name, value): (String, String)| all.with(name, value);
    let options = server.options().into_iter().fold(StorageOptions::new(), add);
    url.parse::<Location>().unwrap().open(&options, &Env::default(), &files()).unwrap()
}

fn files() -> Arc<dyn FileSystem> {
    Arc::new(OsFileSystem)
}

fn client(server: &TestS3) -> Arc<dyn ObjectStore> {
    client_at(server, &server.url("place"))
}

/// The client as it is, without the layers that repeat and explain.
fn bare(server: &TestS3, secret: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY_ID)
        .with_secret_access_key(secret)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap()
}

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

fn servers() -> [TestS3; 2] {
    [TestS3::start().unwrap(), TestS3::start_gcs().unwrap()]
}

#[tokio::test]
async fn objects_are_put_read_in_ranges_copied_and_deleted() {
    for server in servers() {
        let store = client(&server);
        for key in ["a", "deep/er/key", "sp ace/+plus", "perc%25/ent", "uni/ü€𝄞", "q?x#y&z=1"]
        {
            let path = Path::from(key);
            store.put(&path, "0123456789".into()).await.unwrap();
            let got = store.get(&path).await.unwrap();
            assert_eq!(got.meta.size, 10);
            assert_eq!(got.bytes().await.unwrap(), Bytes::from("0123456789"), "{key}");
            assert_eq!(store.head(&path).await.unwrap().size, 10);
            assert_eq!(store.get_range(&path, 2..5).await.unwrap(), Bytes::from("234"));
            let ranges = store.get_ranges(&path, &[0..1, 8..10]).await.unwrap();
            assert_eq!(ranges, [Bytes::from("0"), Bytes::from("89")]);
            for (range, expected) in [(GetRange::Suffix(3), "789"), (GetRange::Offset(8), "89")] {
                let options = GetOptions { range: Some(range), ..GetOptions::default() };
                let got = store.get_opts(&path, options).await.unwrap().bytes().await.unwrap();
                assert_eq!(got, Bytes::from(expected));
            }
            let copy = Path::from(format!("copy/{key}"));
            store.copy(&path, &copy).await.unwrap();
            assert_eq!(store.get(&copy).await.unwrap().bytes().await.unwrap().len(), 10);
            let listed: Vec<Path> =
                store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
            assert_eq!(listed.len(), 2, "{listed:?}");
            store.delete(&path).await.unwrap();
            store.delete(&copy).await.unwrap();
            assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
        }
    }
}

#[tokio::test]
async fn conditional_puts_are_decided_by_what_is_there() {
    for server in servers() {
        let store = client(&server);
        let path = Path::from("a");
        let first = store.put_opts(&path, "1".into(), create()).await.unwrap();
        let again = store.put_opts(&path, "2".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        let update = |result: &tidelog_storage::object_store::PutResult| {
            let version =
                UpdateVersion { e_tag: result.e_tag.clone(), version: result.version.clone() };
            PutOptions::from(PutMode::Update(version))
        };
        store.put_opts(&path, "3".into(), update(&first)).await.unwrap();
        let stale = store.put_opts(&path, "4".into(), update(&first)).await;
        assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), Bytes::from("3"));
        let options = GetOptions { if_match: first.e_tag.clone(), ..GetOptions::default() };
        let stale = store.get_opts(&path, options).await;
        assert!(matches!(stale, Err(Error::Precondition { .. })));
        let missing = store.put_opts(&Path::from("b"), "4".into(), update(&first)).await;
        assert!(matches!(missing, Err(Error::Precondition { .. })), "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_creating_writers_exactly_one_wins() {
    const KEYS: usize = 150;
    for server in servers() {
        let stores: Vec<_> = (0..8).map(|_| client(&server)).collect();
        for key in 0..KEYS {
            let path = Path::from(format!("race/{key}"));
            let puts = stores.iter().enumerate().map(|(writer, store)| {
                let (store, path) = (Arc::clone(store), path.clone());
                tokio::spawn(async move {
                    let body = PutPayload::from(format!("writer {writer}"));
                    store.put_opts(&path, body, create()).await.map(|_| writer)
                })
            });
            let mut winners = Vec::new();
            for put in futures::future::join_all(puts).await {
                match put.unwrap() {
                    Ok(writer) => winners.push(writer),
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let [winner] = winners.as_slice() else { panic!("{key}: {winners:?}") };
            let found = stores[0].get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(found, Bytes::from(format!("writer {winner}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_is_compared_and_swapped_loses_nothing() {
    let server = TestS3::start().unwrap();
    let path = Path::from("counter");
    let store = client(&server);
    store.put(&path, "0".into()).await.unwrap();
    let add = |store: Arc<dyn ObjectStore>| async move {
        let mut acked = 0_u64;
        for _ in 0..20 {
            let path = Path::from("counter");
            let got = store.get(&path).await.unwrap();
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: None };
            let count: u64 =
                std::str::from_utf8(&got.bytes().await.unwrap()).unwrap().parse().unwrap();
            let put = PutOptions::from(PutMode::Update(version));
            let next = PutPayload::from((count + 1).to_string());
            acked += u64::from(store.put_opts(&path, next, put).await.is_ok());
        }
        acked
    };
    let adding: Vec<_> = (0..4).map(|_| tokio::spawn(add(client(&server)))).collect();
    let mut acked = 0;
    for task in adding {
        acked += task.await.unwrap();
    }
    let found = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(found, Bytes::from(acked.to_string()));
}

#[tokio::test]
async fn multipart_uploads_appear_whole_or_not_at_all() {
    for server in servers() {
        let store = client(&server);
        let path = Path::from("big");
        let mut upload = store.put_multipart(&path).await.unwrap();
        let part = |byte: u8| PutPayload::from(vec![byte; 1 << 20]);
        let (first, second) = (upload.put_part(part(1)), upload.put_part(part(2)));
        let (second, first) = futures::join!(second, first);
        first.unwrap();
        second.unwrap();
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[1 << 20]), (2 << 20, 1, 2));

        let mut upload = store.put_multipart(&Path::from("given up")).await.unwrap();
        upload.put_part(part(3)).await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!(server.keys().len(), 1);
    }
}

#[tokio::test]
async fn an_upload_completes_with_a_condition() {
    let server = TestS3::start().unwrap();
    let store = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY_ID)
        .with_secret_access_key(SECRET_ACCESS_KEY)
        .with_config("copy_if_not_exists".parse().unwrap(), "multipart")
        .build()
        .unwrap();
    let (from, to) = (Path::from("from"), Path::from("to"));
    store.put(&to, "there".into()).await.unwrap();
    // The client copies as a part, which this server does not know, and so creates nothing.
    let copy = CopyOptions::new().with_mode(CopyMode::Create);
    store.copy_opts(&from, &to, copy).await.unwrap_err();
    assert_eq!(store.get(&to).await.unwrap().bytes().await.unwrap(), Bytes::from("there"));
}

#[tokio::test]
async fn lists_come_in_pages_by_prefix_by_folder_and_from_an_offset() {
    for server in servers() {
        let store = client(&server);
        let all: BTreeSet<Path> =
            (0..1_203).map(|i| Path::from(format!("l/{:03}/{i:04}", i / 100))).collect();
        let puts = all.iter().map(|path| store.put(path, "x".into()));
        stream::iter(puts).buffered(16).try_collect::<Vec<_>>().await.unwrap();
        server.reset_counts();
        let names = |meta: tidelog_storage::object_store::ObjectMeta| meta.location;
        let listed: Vec<Path> = store.list(None).map_ok(names).try_collect().await.unwrap();
        assert!(listed.iter().eq(&all));
        assert_eq!(server.counts().by_operation[&S3Operation::List], 2);

        server.set_page_max(7);
        let prefix = Path::from("l/003");
        let listed: Vec<Path> =
            store.list(Some(&prefix)).map_ok(names).try_collect().await.unwrap();
        assert_eq!(listed.len(), 100);
        let offset = Path::from("l/011/1190");
        let listed: Vec<Path> =
            store.list_with_offset(None, &offset).map_ok(names).try_collect().await.unwrap();
        assert_eq!(listed.len(), 12);
        let folders = store.list_with_delimiter(Some(&Path::from("l"))).await.unwrap();
        assert_eq!((folders.common_prefixes.len(), folders.objects.len()), (13, 0));

        let paths = stream::iter(all.clone().into_iter().map(Ok)).boxed();
        let deleted: BTreeSet<Path> = store.delete_stream(paths).try_collect().await.unwrap();
        assert_eq!(deleted, all);
        assert!(server.keys().is_empty());
    }
}

#[tokio::test]
async fn only_who_signs_with_the_key_gets_in() {
    let server = TestS3::start().unwrap();
    let path = Path::from("a");
    bare(&server, SECRET_ACCESS_KEY).put(&path, "x".into()).await.unwrap();
    let refused = bare(&server, "wrong").get(&path).await.unwrap_err();
    assert!(refused.to_string().contains("SignatureDoesNotMatch"), "{refused}");
    let options = StorageOptions::new()
        .with("aws_access_key_id", "nobody")
        .with("aws_secret_access_key", "canary-secret");
    let location: Location = server.url("").parse().unwrap();
    let store = location.open(&options, &Env::default(), &files()).unwrap();
    let refused = store.get(&path).await.unwrap_err();
    assert!(refused.to_string().contains("InvalidAccessKeyId"), "{refused}");
    assert_eq!(kind_of(&refused), ErrorKind::PermissionDenied);
    assert!(!format!("{refused:?} {store:?}").contains("canary"));
}

#[tokio::test]
async fn buckets_that_are_missing_or_read_only_are_told_apart() {
    for server in servers() {
        let path = Path::from("a");
        let store = client_at(&server, &server.url_in("nowhere", "p"));
        for error in [
            store.put(&path, "x".into()).await.unwrap_err(),
            store.get(&path).await.unwrap_err(),
            store.list(None).try_collect::<Vec<_>>().await.unwrap_err(),
        ] {
            assert_eq!(kind_of(&error), ErrorKind::NotFound, "{error:?}");
            assert!(error.to_string().contains("nowhere"), "{error}");
        }
        let store = client(&server);
        store.put(&path, "x".into()).await.unwrap();
        server.set_read_only(true);
        store.get(&path).await.unwrap();
        let error = store.put(&path, "x".into()).await.unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(server.counts().by_operation[&S3Operation::Put], 3);
    }
}

#[tokio::test]
async fn a_fault_strikes_before_or_after_the_request_takes_effect() {
    for failure in [Failure::Reset, Failure::Close, Failure::Status(500), Failure::Status(412)] {
        for (after, there) in [(false, false), (true, true)] {
            let server = TestS3::start().unwrap();
            let store = bare(&server, SECRET_ACCESS_KEY);
            let fault = HttpFault::new(failure).on(S3Operation::Put);
            server.inject(if after { fault.after() } else { fault });
            let path = Path::from("a");
            let error = store.put_opts(&path, "x".into(), create()).await.unwrap_err();
            assert_eq!(server.injected(), 1, "{error}");
            assert_eq!(store.head(&path).await.is_ok(), there, "{failure:?} {after}");
            assert_eq!(server.take_requests().len(), 2, "the client repeats nothing");
        }
    }
}

#[tokio::test]
async fn what_breaks_on_the_way_is_repeated_above_the_client() {
    for server in servers() {
        let store = client(&server);
        let path = Path::from("a");
        let body = Bytes::from(vec![7; 300_000]);
        for failure in [Failure::Reset, Failure::Close, Failure::Status(503), Failure::HalfBody] {
            server.heal();
            server.inject(HttpFault::new(failure).nth(2).every());
            for _ in 0..3 {
                store.put(&path, body.clone().into()).await.unwrap();
                assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), body);
                assert_eq!(store.list(None).count().await, 1);
            }
        }
        assert!(server.injected() >= 24, "{}", server.injected());
    }
}

#[tokio::test]
async fn a_stale_list_lacks_the_newest_objects() {
    let server = TestS3::start().unwrap();
    let store = client(&server);
    for key in ["a", "b", "c"] {
        store.put(&Path::from(key), "x".into()).await.unwrap();
    }
    server.inject(HttpFault::new(Failure::StaleList(1)).on(S3Operation::List));
    assert_eq!(store.list(None).count().await, 2);
    assert_eq!(store.list(None).count().await, 3);
}

#[tokio::test]
async fn latency_is_paid_by_each_request_and_round_trips_are_counted() {
    let server = TestS3::start().unwrap();
    let store = client(&server);
    server.set_latency(Duration::from_millis(40));
    let before = tokio::time::Instant::now();
    let puts = (0..8).map(|i| {
        let store = Arc::clone(&store);
        async move { store.put(&Path::from(format!("{i}")), "x".into()).await }
    });
    futures::future::try_join_all(puts).await.unwrap();
    store.get(&Path::from("0")).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(80));
    let counts = server.counts();
    assert_eq!((counts.total, counts.round_trips), (9, 2), "{counts:?}");
    assert!(counts.concurrent_max >= 6, "{counts:?}");
}

#[tokio::test]
async fn conditions_can_be_ignored_as_some_servers_do() {
    let server = TestS3::start().unwrap();
    let store = client(&server);
    server.set_ignore_conditions(true);
    let prefix = Path::from("_oplog");
    let randomness = tidelog_core::env::SystemRandomness;
    let proof = tidelog_storage::probe::put_if_absent(&store, &prefix, &randomness).await;
    assert_eq!(proof.unwrap_err().kind(), ErrorKind::Unsupported);
    server.set_ignore_conditions(false);
    tidelog_storage::probe::put_if_absent(&store, &prefix, &randomness).await.unwrap();
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn one_seed_gives_one_sequence_of_random_faults() {
    let run = async |seed| {
        let server = TestS3::start().unwrap();
        let store = bare(&server, SECRET_ACCESS_KEY);
        server.inject_randomly(seed, 0.5);
        let mut outcomes = Vec::new();
        for _ in 0..40 {
            outcomes.push(store.put(&Path::from("a"), "x".into()).await.is_ok());
        }
        outcomes
    };
    let first = run(5).await;
    assert_eq!(first, run(5).await);
    assert!(first.contains(&true) && first.contains(&false));
}
