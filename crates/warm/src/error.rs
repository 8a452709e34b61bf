//! What can go wrong in a warm tier, and what to do about it.

use std::fmt;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// Why a backend did not seal, or did not answer.
///
/// No variant is a wrong answer, and none leaves anything half stored: whoever gets one serves the
/// same rows from the hot or the cold tier, except for [`WarmError::Invalid`], which is a mistake of
/// the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WarmError {
    /// The backend does not do this, or not in the way that the plan would: another tier serves it.
    ///
    /// Which requests these are is the same for all backends.
    #[error("the warm tier does not do this: {what}")]
    Unsupported {
        /// What it does not do.
        what: Unsupported,
    },
    /// The request, the table or a batch contradicts itself or the table. A bug of the caller.
    #[error("the warm tier was asked for something impossible: {what}")]
    Invalid {
        /// What is wrong.
        what: Invalid,
    },
    /// The bytes do not fit, even with all other segments evicted.
    #[error("the warm tier has {free} bytes left where {wanted} are needed")]
    OutOfMemory {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that are free, or would be.
        free: u64,
    },
    /// A segment was evicted before the request began to read it.
    #[error("segment {segment} was evicted from the warm tier")]
    Evicted {
        /// Number of the segment.
        segment: u64,
    },
    /// The flag of [`Request::cancel`](crate::Request::cancel) was set.
    #[error("the request was cancelled")]
    Cancelled,
    /// The backend has failed for good, and answers every later call in this way.
    #[error("the warm tier is out of use: {reason}")]
    Dead {
        /// What happened to it first.
        reason: String,
    },
}

impl WarmError {
    /// A stable name of the variant, by which statistics count.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "unsupported",
            Self::Invalid { .. } => "invalid",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Evicted { .. } => "evicted",
            Self::Cancelled => "cancelled",
            Self::Dead { .. } => "dead",
        }
    }
}

impl From<Unsupported> for WarmError {
    fn from(what: Unsupported) -> Self {
        Self::Unsupported { what }
    }
}

impl From<Invalid> for WarmError {
    fn from(what: Invalid) -> Self {
        Self::Invalid { what }
    }
}

/// Arrow refuses what is too large for its types, such as 2 GiB of text in one `Utf8` column.
impl From<ArrowError> for WarmError {
    fn from(error: ArrowError) -> Self {
        Unsupported::Arrow { message: error.to_string() }.into()
    }
}

/// What no backend does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Segments leave out columns of this type.
    NotHeld {
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// Rows cannot be told apart by a column of this type.
    KeyType {
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// The literal is not of the column's type.
    Literal {
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
        /// The literal.
        literal: String,
    },
    /// The predicate is nested deeper than [`PREDICATE_DEPTH_MAX`](crate::PREDICATE_DEPTH_MAX).
    PredicateDepth,
    /// The function does not take columns of this type, or would give another type than DataFusion.
    Function {
        /// Name of the function.
        function: &'static str,
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// Least and greatest values depend on the order of rows where there is a NaN.
    MinMaxNan {
        /// Name of the column.
        column: String,
    },
    /// Rows are grouped by something else than a key column.
    GroupColumn {
        /// Name of the column.
        column: String,
    },
    /// Rows are grouped twice by the same column, or by two buckets.
    GroupTwice,
    /// A bucket begins before the first value of a 64-bit time.
    BucketRange {
        /// Where buckets are counted from, in the unit of the time column.
        origin: i64,
        /// The length of a bucket, in the same unit.
        width: i64,
        /// A time whose bucket begins too early.
        time: i64,
    },
    /// Rows are ordered by text, which segments hold as codes.
    TextOrder {
        /// Name of the column.
        column: String,
    },
    /// More rows are wanted than [`TOP_K_MAX`](crate::TOP_K_MAX).
    TopK {
        /// How many.
        k: usize,
    },
    /// The distinct texts or keys of a table are too many or too long to be kept for its lifetime. Later
    /// seals of the table are likely to be refused too.
    DictionaryFull {
        /// Name of the column, or of the first key column.
        column: String,
        /// The bytes that they may have.
        bytes_max: usize,
    },
    /// An answer has more distinct values than the declared dictionary type has codes.
    DictionaryCodes {
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// A segment would have more rows than [`SEGMENT_ROWS_MAX`](crate::SEGMENT_ROWS_MAX).
    SegmentRows {
        /// How many.
        rows: usize,
    },
    /// Something is larger than the Arrow type that it should have.
    Arrow {
        /// What Arrow says.
        message: String,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld { column, data_type } => {
                write!(f, "column {column:?} of type {data_type} is not held")
            }
            Self::KeyType { column, data_type } => {
                write!(f, "key column {column:?} has type {data_type}")
            }
            Self::Literal { column, data_type, literal } => {
                write!(f, "column {column:?} of type {data_type} against the literal {literal}")
            }
            Self::PredicateDepth => write!(
                f,
                "a predicate that is nested more than {} deep",
                crate::request::PREDICATE_DEPTH_MAX
            ),
            Self::Function { function, column, data_type } => {
                write!(f, "{function} of column {column:?} of type {data_type}")
            }
            Self::MinMaxNan { column } => {
                write!(f, "min or max of column {column:?}, which has NaN")
            }
            Self::GroupColumn { column } => {
                write!(f, "groups by column {column:?}, which is not a key")
            }
            Self::GroupTwice => write!(f, "groups by one column twice, or by two buckets"),
            Self::BucketRange { origin, width, time } => write!(
                f,
                "buckets of {width} from {origin}, because that of time {time} begins too early \
                 for 64 bits"
            ),
            Self::TextOrder { column } => write!(f, "order by the text of column {column:?}"),
            Self::TopK { k } => {
                write!(f, "the first {k} rows, more than {}", crate::request::TOP_K_MAX)
            }
            Self::DictionaryFull { column, bytes_max } => {
                write!(f, "distinct values of column {column:?} in more than {bytes_max} bytes")
            }
            Self::DictionaryCodes { column, data_type } => {
                write!(f, "more distinct values of column {column:?} than {data_type} has codes")
            }
            Self::SegmentRows { rows } => write!(
                f,
                "a segment of {rows} rows, more than {}",
                crate::segment::SEGMENT_ROWS_MAX
            ),
            Self::Arrow { message } => write!(f, "{message}"),
        }
    }
}

/// What contradicts itself or the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// A column is named that the schema does not have.
    Column {
        /// Its number.
        column: usize,
        /// How many columns there are.
        columns: usize,
    },
    /// The time column is not a timestamp.
    TimeType {
        /// Name of the column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// A column is named twice as time or key.
    RoleTwice {
        /// Name of the column.
        column: String,
    },
    /// A batch does not have the columns of the table.
    Batch {
        /// Number of the batch, from 0.
        batch: usize,
        /// What differs.
        difference: String,
    },
    /// A row has no time.
    NullTime {
        /// Number of the row, counted from 0 over all batches.
        row: usize,
    },
    /// A segment belongs to another table, or another backend made it.
    ForeignSegment {
        /// Number of the segment.
        segment: u64,
    },
    /// Buckets are not at least 1 long.
    BucketWidth {
        /// Their length, in the unit of the time column.
        width: i64,
    },
    /// A wanted key has another number of values than the table has key columns.
    KeyLength {
        /// Its values.
        found: usize,
        /// The key columns.
        expected: usize,
    },
    /// A function that needs a column has none.
    FunctionColumn {
        /// Name of the function.
        function: &'static str,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { column, columns } => {
                write!(f, "column number {column}, where there are {columns}, counted from 0")
            }
            Self::TimeType { column, data_type } => {
                write!(f, "time column {column:?} has type {data_type}, not a timestamp")
            }
            Self::RoleTwice { column } => {
                write!(f, "column {column:?} is named twice as time or key")
            }
            Self::Batch { batch, difference } => write!(f, "batch {batch}: {difference}"),
            Self::NullTime { row } => write!(f, "row {row} has no time"),
            Self::ForeignSegment { segment } => {
                write!(f, "segment {segment} is of another table or backend")
            }
            Self::BucketWidth { width } => {
                write!(f, "buckets of length {width}, where it has to be 1 or more")
            }
            Self::KeyLength { found, expected } => {
                write!(f, "a key of {found} values for {expected} key columns")
            }
            Self::FunctionColumn { function } => write!(f, "{function} without a column"),
        }
    }
}
