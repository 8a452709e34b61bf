//! The one wide schema of the log table.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Columns of the log, in order. The names are part of the format.
pub(crate) mod column {
    pub(crate) const COMMIT_VERSION: &str = "commit_version";
    pub(crate) const KIND: &str = "kind";
    pub(crate) const OP: &str = "op";
    pub(crate) const ENTRY_TYPE: &str = "entry_type";
    pub(crate) const NODE_ID: &str = "node_id";
    pub(crate) const PATH: &str = "path";
    pub(crate) const TIMESTAMP: &str = "timestamp";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const MIN_EVENT_TIME: &str = "min_event_time";
    pub(crate) const MAX_EVENT_TIME: &str = "max_event_time";
    pub(crate) const EVENT_TIME_COLUMN: &str = "event_time_column";
    pub(crate) const ROWS: &str = "rows";
    pub(crate) const TRANSACTION_ID: &str = "transaction_id";
    pub(crate) const SCHEMA: &str = "schema";
    pub(crate) const OPTIONS: &str = "options";
    pub(crate) const DETAIL: &str = "detail";
    pub(crate) const FILE_ID: &str = "file_id";
    pub(crate) const LOCATION: &str = "location";
    pub(crate) const SIZE: &str = "size";
    pub(crate) const ROW_GROUPS: &str = "row_groups";
    pub(crate) const ROW_OFFSET: &str = "row_offset";
    pub(crate) const TAIL_LENGTH: &str = "tail_length";
    pub(crate) const HASH: &str = "hash";
    pub(crate) const TAIL_HASH: &str = "tail_hash";
    pub(crate) const PAGE_HASHES: &str = "page_hashes";
    pub(crate) const MIN_VERSION: &str = "min_version";
    pub(crate) const MAX_VERSION: &str = "max_version";
    pub(crate) const VERSION_BASE: &str = "version_base";
    pub(crate) const PARTITION: &str = "partition";
    pub(crate) const FILE_ORDER: &str = "file_order";
    pub(crate) const CODEC: &str = "codec";
    pub(crate) const ROW_GROUP_ROWS: &str = "row_group_rows";
    pub(crate) const SORTED_RUNS: &str = "sorted_runs";
    pub(crate) const SUPERSEDED: &str = "superseded";
    pub(crate) const UNIQUE: &str = "unique_rows";
    pub(crate) const MIN_UNTIL: &str = "min_until";
    pub(crate) const MAX_UNTIL: &str = "max_until";
    pub(crate) const COLUMN_STATS: &str = "column_stats";
}

/// Columns with minimum, maximum and null count on every `add`, so that any Delta reader can skip
/// parts by them.
pub(crate) const STATS_COLUMNS: [&str; 9] = [
    column::COMMIT_VERSION,
    column::KIND,
    column::ENTRY_TYPE,
    column::NODE_ID,
    column::PATH,
    column::TIMESTAMP,
    column::VERSION,
    column::MIN_EVENT_TIME,
    column::MAX_EVENT_TIME,
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let binary = |name: &str| Field::new(name, DataType::Binary, true);
    let boolean = |name: &str| Field::new(name, DataType::Boolean, true);
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(column::COMMIT_VERSION, DataType::Int64, false),
        Field::new(column::KIND, DataType::Utf8, false),
        Field::new(column::OP, DataType::Utf8, false),
        text(column::ENTRY_TYPE),
        text(column::NODE_ID),
        text(column::PATH),
        Field::new(column::TIMESTAMP, timestamp, false),
        long(column::VERSION),
        long(column::MIN_EVENT_TIME),
        long(column::MAX_EVENT_TIME),
        text(column::EVENT_TIME_COLUMN),
        long(column::ROWS),
        text(column::TRANSACTION_ID),
        binary(column::SCHEMA),
        text(column::OPTIONS),
        text(column::DETAIL),
        text(column::FILE_ID),
        text(column::LOCATION),
        long(column::SIZE),
        long(column::ROW_GROUPS),
        long(column::ROW_OFFSET),
        long(column::TAIL_LENGTH),
        text(column::HASH),
        text(column::TAIL_HASH),
        binary(column::PAGE_HASHES),
        long(column::MIN_VERSION),
        long(column::MAX_VERSION),
        long(column::VERSION_BASE),
        text(column::PARTITION),
        text(column::FILE_ORDER),
        boolean(column::SUPERSEDED),
        boolean(column::UNIQUE),
        long(column::MIN_UNTIL),
        long(column::MAX_UNTIL),
        binary(column::COLUMN_STATS),
        text(column::CODEC),
        long(column::ROW_GROUP_ROWS),
        binary(column::SORTED_RUNS),
    ]))
});

/// The Arrow schema of the log table.
#[must_use]
pub fn log_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}
