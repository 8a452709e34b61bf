//! What can go wrong in a merge, and what to do about it.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// Why a merge cannot be set up, fed or continued.
///
/// Rows are counted from 0 over all batches of an input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec names a column that the schema does not have.
    #[error(
        "the {role} column is number {column}, but the schema has {columns} columns: name a \
         column of the schema"
    )]
    MissingColumn {
        /// What the column is for: `time`, `key` or `version`.
        role: &'static str,
        /// Its number in the spec.
        column: usize,
        /// How many columns the schema has.
        columns: usize,
    },
    /// The spec gives one column two roles.
    #[error(
        "column {column:?} is named twice in the spec: time, keys and version must be \
         different columns"
    )]
    RepeatedColumn {
        /// Name of the column.
        column: String,
    },
    /// The time column has a type that has no event times.
    #[error(
        "time column {column:?} has type {found}: use a timestamp, Date32, Date64 or Int64 column"
    )]
    TimeType {
        /// Name of the column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// The version column is not an Int64.
    #[error("version column {column:?} has type {found}: cast it to Int64")]
    VersionType {
        /// Name of the column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// A key column has, or contains, floating-point numbers, whose equality is no identity.
    #[error(
        "key column {column:?} has type {found}: floats cannot be keys, use an integer, a \
         decimal or a string"
    )]
    FloatKey {
        /// Name of the column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// A key column has a type without an order.
    #[error("key column {column:?} has type {found}, which has no order: use a sortable type")]
    KeyType {
        /// Name of the column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// Output batches of no rows were asked for.
    #[error("batches of 0 rows cannot hold the output: set batch_rows to 1 or more")]
    ZeroBatchRows,
    /// An input was named that the merge does not have.
    #[error("there is no input {input}: the merge was made for {inputs} inputs, counted from 0")]
    UnknownInput {
        /// The input named.
        input: usize,
        /// How many inputs there are.
        inputs: usize,
    },
    /// An input was fed or finished that waits for nothing.
    #[error(
        "input {input} still has rows or is finished: feed only inputs that a step asks for, \
         or that wait"
    )]
    NotWaiting {
        /// The input.
        input: usize,
    },
    /// A batch has another number of columns than the schema.
    #[error(
        "a batch of input {input} has {found} columns, the schema has {expected}: project the \
         batch onto the schema of the merge"
    )]
    ColumnCount {
        /// The input.
        input: usize,
        /// Columns of the schema.
        expected: usize,
        /// Columns of the batch.
        found: usize,
    },
    /// A column of a batch has another name than in the schema.
    #[error(
        "input {input} has column {found:?} in the place of {expected:?}: project the batch onto \
         the schema of the merge"
    )]
    ColumnName {
        /// The input.
        input: usize,
        /// Name in the schema.
        expected: String,
        /// Name in the batch.
        found: String,
    },
    /// A column of a batch has another type than in the schema.
    #[error(
        "column {column:?} of input {input} has type {found}, the schema says {expected}: cast \
         it before the merge"
    )]
    ColumnType {
        /// The input.
        input: usize,
        /// Name of the column.
        column: String,
        /// Type in the schema.
        expected: DataType,
        /// Type in the batch.
        found: DataType,
    },
    /// A column holds a null where the merge or the schema allows none.
    #[error(
        "row {row} of input {input} has a null in column {column:?}, which must have none: drop \
         or fill such rows before the merge"
    )]
    NullValue {
        /// The input.
        input: usize,
        /// The row.
        row: u64,
        /// Name of the column.
        column: String,
    },
    /// An input goes back in time.
    #[error(
        "row {row} of input {input} has time {time} after time {previous}, both in units of the \
         time column: sort the input by time, keys and version"
    )]
    TimeGoesBack {
        /// The input.
        input: usize,
        /// The first row out of order.
        row: u64,
        /// Its time, in the unit of the column.
        time: i64,
        /// The time of the row before it.
        previous: i64,
    },
    /// Rows of equal time in an input are not in the order of keys and version.
    #[error(
        "row {row} of input {input} has a lower key or version than the row before it at the \
         same time {time}: sort the input by time, keys (nulls first) and version"
    )]
    KeysGoBack {
        /// The input.
        input: usize,
        /// The first row out of order.
        row: u64,
        /// Its time, in the unit of the column.
        time: i64,
    },
    /// An input of a merge by columns is not sorted by them.
    #[error("row {row} of input {input} comes before the row ahead of it: sort the input")]
    RowsGoBack {
        /// The input.
        input: usize,
        /// The first row out of order.
        row: u64,
    },
    /// The merge was used after a step failed.
    #[error("the merge stopped at an earlier error: start a new one from its inputs")]
    Stopped,
    /// Arrow refused an operation on columns.
    #[error("arrow failed to {action}")]
    Arrow {
        /// What was tried.
        action: &'static str,
        /// Arrow's answer.
        source: ArrowError,
    },
}

impl Error {
    /// For `map_err`: an Arrow error with what was tried.
    pub(crate) fn arrow(action: &'static str) -> impl FnOnce(ArrowError) -> Self {
        move |source| Self::Arrow { action, source }
    }
}
