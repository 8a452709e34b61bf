//! The write-ahead log of one writer alone, looked at and mended:
//! [`StoreBuilder::inspect_wal`](crate::StoreBuilder::inspect_wal),
//! [`StoreBuilder::repair_wal`](crate::StoreBuilder::repair_wal).

pub use tidelog_store::{Damage, Holder, Report, SegmentReport, Tail, WalRepair, WalReport};
