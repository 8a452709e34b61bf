//! What is merged: the schema, the roles of its columns, and the settings.

use std::sync::Arc;

use arrow::array::{make_comparator, new_empty_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::Error;

/// What is merged, and how.
///
/// Columns are named by their number in the schema. The spec is checked by
/// [`Merger::try_new`](crate::Merger::try_new).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergeSpec {
    /// Schema of all inputs.
    pub(crate) schema: SchemaRef,
    /// The event time.
    pub(crate) time: usize,
    /// The key columns, first one compared first.
    pub(crate) keys: Vec<usize>,
    /// The absolute version.
    pub(crate) version: Option<usize>,
    /// Whether only the last row of equal time and keys survives.
    pub(crate) dedup: bool,
    /// Rows in an output batch.
    pub(crate) batch_rows: usize,
    /// Schema of the output: the first columns of the inputs.
    pub(crate) output: SchemaRef,
}

impl MergeSpec {
    /// A merge by the time column number `time`, without keys, version or deduplication.
    ///
    /// The time column is a timestamp of any unit and zone, a `Date32`, a `Date64` or an `Int64`,
    /// and holds no nulls.
    #[must_use]
    pub fn new(schema: SchemaRef, time: usize) -> Self {
        Self {
            output: Arc::clone(&schema),
            schema,
            time,
            keys: Vec::new(),
            version: None,
            dedup: false,
            batch_rows: 8192,
        }
    }

    /// The columns that say who a row is about, of any sortable type but floats.
    ///
    /// Default: none, so that with deduplication one row per time survives.
    #[must_use]
    pub fn with_keys(mut self, keys: impl Into<Vec<usize>>) -> Self {
        self.keys = keys.into();
        self
    }

    /// The `Int64` column of absolute versions, without nulls.
    ///
    /// Default: none, so that the number of the input decides between equal times and keys.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<Option<usize>>) -> Self {
        self.version = version.into();
        self
    }

    /// Whether, among rows of equal time and keys, only the last survives.
    ///
    /// Default: false.
    #[must_use]
    pub fn with_dedup(mut self, dedup: bool) -> Self {
        self.dedup = dedup;
        self
    }

    /// How many rows an output batch has at most, unless it is a slice of an input batch.
    ///
    /// Default: 8192.
    #[must_use]
    pub fn with_batch_rows(mut self, batch_rows: usize) -> Self {
        self.batch_rows = batch_rows;
        self
    }

    /// How many columns the output has: the first ones of the inputs. Columns behind them only order rows.
    /// More than there are mean all.
    ///
    /// Default: all.
    #[must_use]
    pub fn with_output_columns(mut self, columns: usize) -> Self {
        let fields: Vec<_> = self.schema.fields().iter().take(columns).cloned().collect();
        let metadata = self.schema.metadata().clone();
        self.output = Arc::new(Schema::new_with_metadata(fields, metadata));
        self
    }

    /// The schema of the output.
    #[must_use]
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// The schema of all inputs.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Refuses what cannot be merged.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.batch_rows == 0 {
            return Err(Error::ZeroBatchRows);
        }
        let time = self.column("time", self.time)?;
        if !is_time(time.data_type()) {
            let found = time.data_type().clone();
            return Err(Error::TimeType { column: time.name().clone(), found });
        }
        if let Some(version) = self.version {
            let field = self.column("version", version)?;
            if field.data_type() != &DataType::Int64 {
                let found = field.data_type().clone();
                return Err(Error::VersionType { column: field.name().clone(), found });
            }
        }
        for &key in &self.keys {
            validate_key(self.column("key", key)?)?;
        }
        self.validate_roles()
    }

    fn validate_roles(&self) -> Result<(), Error> {
        let mut columns: Vec<usize> = self.keys.clone();
        columns.push(self.time);
        columns.extend(self.version);
        columns.sort_unstable();
        match columns.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Error::RepeatedColumn { column: self.schema.field(pair[0]).name().clone() })
            }
            None => Ok(()),
        }
    }

    fn column(&self, role: &'static str, column: usize) -> Result<&Field, Error> {
        let fields = self.schema.fields();
        let missing = || Error::MissingColumn { role, column, columns: fields.len() };
        fields.get(column).map(AsRef::as_ref).ok_or_else(missing)
    }
}

fn is_time(data_type: &DataType) -> bool {
    use DataType::{Date32, Date64, Int64, Timestamp};
    matches!(data_type, Timestamp(_, _) | Date32 | Date64 | Int64)
}

fn validate_key(field: &Field) -> Result<(), Error> {
    let (column, found) = (field.name(), field.data_type());
    if has_floats(found) {
        return Err(Error::FloatKey { column: column.clone(), found: found.clone() });
    }
    let empty = new_empty_array(found);
    match make_comparator(&empty, &empty, SortOptions::default()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::KeyType { column: column.clone(), found: found.clone() }),
    }
}

fn has_floats(data_type: &DataType) -> bool {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded,
        Struct, Union,
    };
    match data_type {
        List(field)
        | LargeList(field)
        | ListView(field)
        | LargeListView(field)
        | FixedSizeList(field, _)
        | Map(field, _)
        | RunEndEncoded(_, field) => has_floats(field.data_type()),
        Dictionary(_, values) => has_floats(values),
        Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        Union(fields, _) => fields.iter().any(|(_, field)| has_floats(field.data_type())),
        other => other.is_floating(),
    }
}
