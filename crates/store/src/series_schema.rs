//! The schema of a series: its columns, which of them is time, which are keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Field, Int64Type, Schema, SchemaRef,
    TimeUnit as ArrowUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use tidelog_core::{EventTime, TimeUnit, TreePath};
use tidelog_oplog::{Layout, SeriesOptions};

use crate::error::Error;

/// The hidden column that tells which version a row belongs to, relative to its file.
pub const VERSION_COLUMN: &str = "__version";
/// The hidden column of files of replaced rows: the version that replaced the row.
pub const UNTIL_COLUMN: &str = "__until";
/// The column of a glob that tells which series a row is from.
pub const PATH_COLUMN: &str = "_path";

/// Names by which a time column is found when none is given, in order.
pub const TIME_COLUMN_NAMES: [&str; 6] =
    ["timestamp", "Timestamp", "event_time", "time", "ts", "datetime"];

/// The columns of a series and their roles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SeriesSchema {
    columns: SchemaRef,
    time: usize,
    unit: TimeUnit,
    keys: Arc<[usize]>,
    dedup: bool,
    layout: Layout,
}

impl SeriesSchema {
    /// Finds the roles of `columns` under `options`; the time column becomes non-null.
    ///
    /// # Errors
    /// If a column's name is reserved or given twice, no column can be the time column, or a key
    /// column is missing or of a floating point type.
    pub fn resolve(
        path: &TreePath,
        columns: &Schema,
        options: &SeriesOptions,
    ) -> Result<Self, Error> {
        check_names(path, columns)?;
        let time = match &options.time_column {
            Some(name) => named_time_column(path, columns, name, options.time_unit)?,
            None => found_time_column(path, columns, options.time_unit)?,
        };
        let unit =
            unit_of(columns.field(time).data_type(), options.time_unit).ok_or_else(|| {
                no_time_column(path, columns, "its type does not tell time".to_owned())
            })?;
        let keys = options
            .key_columns
            .iter()
            .map(|name| key_column(path, columns, name, time))
            .collect::<Result<Vec<_>, _>>()?;
        let fields: Vec<Field> = columns
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let field = field.as_ref().clone();
                if i == time { field.with_nullable(false) } else { field }
            })
            .collect();
        let columns = Arc::new(Schema::new_with_metadata(fields, columns.metadata().clone()));
        let (dedup, layout) = (options.dedup, options.layout());
        Ok(Self { columns, time, unit, keys: keys.into(), dedup, layout })
    }

    /// The columns that users see.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The columns as stored: the user's and `__version`.
    #[must_use]
    pub fn stored_columns(&self) -> SchemaRef {
        let mut fields = self.columns.fields().to_vec();
        fields.push(Arc::new(Field::new(VERSION_COLUMN, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    /// The columns of a file of replaced rows: as stored, and `__until`.
    #[must_use]
    pub fn superseded_columns(&self) -> SchemaRef {
        let mut fields = self.stored_columns().fields().to_vec();
        fields.push(Arc::new(Field::new(UNTIL_COLUMN, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    /// The index of the time column.
    #[must_use]
    pub fn time_index(&self) -> usize {
        self.time
    }

    /// The name of the time column.
    #[must_use]
    pub fn time_column(&self) -> &str {
        self.columns.field(self.time).name()
    }

    /// The unit in which the time column counts.
    #[must_use]
    pub fn time_unit(&self) -> TimeUnit {
        self.unit
    }

    /// The indexes of the key columns.
    #[must_use]
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// Whether a later row replaces an earlier one with the same key and event time.
    #[must_use]
    pub fn dedup(&self) -> bool {
        self.dedup
    }

    /// How its files are laid out.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The first event time behind the partition of `time`, both in the series' unit; `None` where there
    /// is none.
    pub(crate) fn partition_end(&self, time: i64) -> Option<i64> {
        let time = EventTime::from_unit(time, self.unit)?;
        self.layout.partition.end_after(time).map(|end| end.ceil_to(self.unit))
    }

    /// The values of the time column of `batch`, in the series' unit.
    ///
    /// # Errors
    /// If the column is not of the series' type.
    pub fn times(&self, path: &TreePath, batch: &RecordBatch) -> Result<Int64Array, Error> {
        time_values(batch.column(self.time)).ok_or_else(|| Error::Column {
            path: path.clone(),
            column: self.time_column().to_owned(),
            reason: format!("{} does not tell time", batch.column(self.time).data_type()),
        })
    }
}

fn check_names(path: &TreePath, columns: &Schema) -> Result<(), Error> {
    let refuse = |column: &str, reason: &str| {
        Err(Error::Column {
            path: path.clone(),
            column: column.to_owned(),
            reason: reason.to_owned(),
        })
    };
    for (i, field) in columns.fields().iter().enumerate() {
        let name = field.name();
        if name.is_empty() {
            return refuse(name, "a column needs a name; give it one");
        }
        if name == PATH_COLUMN || name.starts_with("__") {
            return refuse(name, "the name is reserved for Tidelog; rename the column");
        }
        if columns.fields()[..i].iter().any(|other| other.name() == name) {
            return refuse(name, "the name is given twice; rename one of the columns");
        }
    }
    Ok(())
}

fn named_time_column(
    path: &TreePath,
    columns: &Schema,
    name: &str,
    unit: Option<TimeUnit>,
) -> Result<usize, Error> {
    let Ok(index) = columns.index_of(name) else {
        return Err(no_time_column(path, columns, format!("there is no column {name:?}")));
    };
    let data_type = columns.field(index).data_type();
    if unit_of(data_type, unit).is_some() {
        return Ok(index);
    }
    let hint = if *data_type == DataType::Int64 { "; state its unit (`--unit`)" } else { "" };
    Err(no_time_column(path, columns, format!("column {name:?} is {data_type}{hint}")))
}

fn found_time_column(
    path: &TreePath,
    columns: &Schema,
    unit: Option<TimeUnit>,
) -> Result<usize, Error> {
    let usable = |i: usize| unit_of(columns.field(i).data_type(), unit).is_some();
    for name in TIME_COLUMN_NAMES {
        if let Ok(index) = columns.index_of(name)
            && usable(index)
        {
            return Ok(index);
        }
    }
    let timestamps: Vec<usize> = (0..columns.fields().len())
        .filter(|i| matches!(columns.field(*i).data_type(), DataType::Timestamp(..)))
        .collect();
    match timestamps.as_slice() {
        [only] => Ok(*only),
        [] => Err(no_time_column(path, columns, "no column holds timestamps".to_owned())),
        _ => Err(no_time_column(path, columns, "several columns hold timestamps".to_owned())),
    }
}

fn key_column(path: &TreePath, columns: &Schema, name: &str, time: usize) -> Result<usize, Error> {
    let refuse = |reason: &str| Error::Column {
        path: path.clone(),
        column: name.to_owned(),
        reason: reason.to_owned(),
    };
    let index = columns
        .index_of(name)
        .map_err(|_| refuse("it is named as a key but is not there; name an existing column"))?;
    if index == time {
        return Err(refuse("the time column cannot be a key; leave it out of the keys"));
    }
    let data_type = columns.field(index).data_type();
    if data_type.is_floating() {
        return Err(refuse("a floating point column cannot be a key; cast it or leave it out"));
    }
    if data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..)) {
        return Err(refuse("a nested column cannot be a key; leave it out"));
    }
    Ok(index)
}

fn no_time_column(path: &TreePath, columns: &Schema, reason: String) -> Error {
    let list: Vec<String> =
        columns.fields().iter().map(|f| format!("{} ({})", f.name(), f.data_type())).collect();
    Error::NoTimeColumn { path: path.clone(), reason, columns: list.join(", ") }
}

/// The unit in which a column of `data_type` counts time; `stated` is for plain integers.
#[must_use]
pub fn unit_of(data_type: &DataType, stated: Option<TimeUnit>) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Some(match unit {
            ArrowUnit::Second => TimeUnit::Second,
            ArrowUnit::Millisecond => TimeUnit::Millisecond,
            ArrowUnit::Microsecond => TimeUnit::Microsecond,
            ArrowUnit::Nanosecond => TimeUnit::Nanosecond,
        }),
        DataType::Date32 => Some(TimeUnit::Day),
        DataType::Date64 => Some(TimeUnit::Millisecond),
        DataType::Int64 => stated,
        _ => None,
    }
}

/// The values of a time column as integers of its unit; `None` if it is of no such type.
#[must_use]
pub fn time_values(array: &ArrayRef) -> Option<Int64Array> {
    fn raw<T: ArrowPrimitiveType<Native = i64>>(array: &PrimitiveArray<T>) -> Int64Array {
        Int64Array::new(array.values().clone(), array.nulls().cloned())
    }
    match array.data_type() {
        DataType::Timestamp(ArrowUnit::Second, _) => {
            Some(raw(array.as_primitive::<TimestampSecondType>()))
        }
        DataType::Timestamp(ArrowUnit::Millisecond, _) => {
            Some(raw(array.as_primitive::<TimestampMillisecondType>()))
        }
        DataType::Timestamp(ArrowUnit::Microsecond, _) => {
            Some(raw(array.as_primitive::<TimestampMicrosecondType>()))
        }
        DataType::Timestamp(ArrowUnit::Nanosecond, _) => {
            Some(raw(array.as_primitive::<TimestampNanosecondType>()))
        }
        DataType::Date64 => Some(raw(array.as_primitive::<Date64Type>())),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().clone()),
        DataType::Date32 => {
            Some(array.as_primitive::<Date32Type>().unary::<_, Int64Type>(i64::from))
        }
        _ => None,
    }
}
