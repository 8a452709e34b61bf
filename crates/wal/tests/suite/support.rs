//! Logs on a simulated file system, and payloads that tell who they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_core::Env;
use tidelog_storage::FileSystem;
use tidelog_testkit::{SimClock, SimFileSystem, env};
use tidelog_wal::{Error, Payload, Wal, WalOptions};

/// Records as plain values.
pub(crate) type Rows = Vec<(u64, Vec<u8>)>;

pub(crate) fn root() -> &'static Path {
    Path::new("/wal")
}

pub(crate) fn segment(number: u64) -> PathBuf {
    root().join(format!("{number:020}.wal"))
}

pub(crate) fn shared(fs: &SimFileSystem) -> Arc<dyn FileSystem> {
    Arc::new(fs.clone())
}

/// The same ids in each run.
pub(crate) fn test_env() -> Env {
    env::env(&Arc::new(SimClock::at(1_700_000_000_000_000)), 7)
}

/// Settings of a log; of a number alone, one that makes no room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
}

impl From<u64> for Shape {
    fn from(segment_bytes: u64) -> Self {
        Self { segment_bytes, reserve_bytes: 0 }
    }
}

pub(crate) fn open(fs: &SimFileSystem, shape: impl Into<Shape>) -> Result<Wal, Error> {
    let Shape { segment_bytes, reserve_bytes } = shape.into();
    let options = WalOptions::default().with_segment_bytes(segment_bytes);
    let options = options.with_reserve_bytes(reserve_bytes);
    Wal::open(shared(fs), root(), &test_env(), options)
}

/// Bytes that no other tag and length gives, none of them zero.
pub(crate) fn bytes_of(tag: u64, length: usize) -> Vec<u8> {
    let mut state = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0] | 1
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn payload_of(tag: u64, length: usize) -> Payload {
    Payload::from(Bytes::from(bytes_of(tag, length)))
}

pub(crate) fn rows(wal: &Wal) -> Result<Rows, Error> {
    wal.records(0).map(|record| record.map(|r| (r.seq, r.payload.to_vec()))).collect()
}
