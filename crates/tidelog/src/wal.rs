//! The write-ahead log of one writer alone, looked at and mended:
//! [`StoreBuilder::inspect_wal`](crate::StoreBuilder::inspect_wal),
//! [`StoreBuilder::repair_wal`](crate::StoreBuilder::repair_wal),
//! [`StoreBuilder::recover_wal`](crate::StoreBuilder::recover_wal).

pub use tidelog_oplog::TakeOver;
pub use tidelog_store::{
    Damage, Holder, RecoverOptions, RecoveredSeries, Renumbered, Report, SegmentReport, Tail,
    WalRecovery, WalRepair, WalReport,
};
