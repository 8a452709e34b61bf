//! What a table holds: its schema, the roles of its columns, and the form of each column.

use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::error::{Invalid, Unsupported, WarmError};
use crate::value::{
    Value, f32_image, f32_of_image, f64_image, f64_of_image, u64_image, u64_of_image,
};

/// How the values of a column lie in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of Arrow's types")]
pub enum Form {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    /// Text, as a `UInt32` number into the table's dictionary of that column.
    Code,
}

impl Form {
    /// The form of columns of a type, or none if segments leave them out.
    ///
    /// Left out are decimals, half floats, intervals, binary and nested types.
    #[must_use]
    pub fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 | DataType::Date32 | DataType::Time32(_) => Self::Int32,
            DataType::Int64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(_, _)
            | DataType::Duration(_) => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Code,
            DataType::Dictionary(_, values)
                if matches!(
                    **values,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                ) =>
            {
                Self::Code
            }
            _ => return None,
        })
    }

    /// The Arrow type of the array that holds the values.
    #[must_use]
    pub const fn physical_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 | Self::Code => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
        }
    }

    /// Whether values are floats, of which some are NaN.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }

    /// Whether values are signed integers, times, dates or durations.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64)
    }

    /// Whether values are unsigned integers. Codes are not.
    #[must_use]
    pub const fn is_unsigned(self) -> bool {
        matches!(self, Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64)
    }

    /// The value whose image this is, or none for a code, which only its table can tell.
    #[must_use]
    pub fn value(self, image: i64) -> Option<Value> {
        Some(match self {
            Self::Boolean => Value::Boolean(image != 0),
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => Value::Int(image),
            Self::UInt8 | Self::UInt16 | Self::UInt32 => Value::UInt(image.cast_unsigned()),
            Self::UInt64 => Value::UInt(u64_of_image(image)),
            Self::Float32 => Value::Float32(f32_of_image(image)),
            Self::Float64 => Value::Float64(f64_of_image(image)),
            Self::Code => return None,
        })
    }

    /// Where a value of this form's family lies among the images, or none if it is of another family
    /// (a text, a null, a float for integers).
    ///
    /// An integer may be out of the column's range, on either side: it is compared as a number.
    #[must_use]
    pub fn place(self, value: &Value) -> Option<Place> {
        let signed = |value: i64| match self {
            Self::UInt64 => match u64::try_from(value) {
                Ok(value) => Place::At(u64_image(value)),
                Err(_) => Place::Below,
            },
            _ => Place::At(value),
        };
        let unsigned = |value: u64| match self {
            Self::UInt64 => Place::At(u64_image(value)),
            _ => i64::try_from(value).map_or(Place::Above, Place::At),
        };
        Some(match (self, value) {
            (Self::Boolean, Value::Boolean(value)) => Place::At(i64::from(*value)),
            (Self::Float32, Value::Float32(value)) => Place::At(f32_image(*value)),
            (Self::Float64, Value::Float64(value)) => Place::At(f64_image(*value)),
            (form, Value::Int(value)) if form.is_signed() || form.is_unsigned() => signed(*value),
            (form, Value::UInt(value)) if form.is_signed() || form.is_unsigned() => {
                unsigned(*value)
            }
            _ => return None,
        })
    }
}

/// Where a literal lies among the images of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before all of them.
    Below,
    /// At this image, which some or no value of the column may have.
    At(i64),
    /// After all of them.
    Above,
}

/// The schema of a table, and the roles of its columns.
///
/// Rows of a segment are ordered by key, then time; equal rows keep the order of their arrival. A
/// key is what all key columns say together. Keys are ordered by their *number*: how early the table
/// saw them first. Nulls are values of a key, equal to each other.
#[derive(Debug, Clone)]
pub struct TableSpec {
    schema: SchemaRef,
    time: usize,
    keys: Vec<usize>,
    forms: Vec<Option<Form>>,
    dictionary_bytes_max: usize,
}

impl TableSpec {
    /// A table of this schema, with the numbers of its time column and its key columns.
    ///
    /// The time column is a timestamp of any unit and zone. Key columns are booleans, integers,
    /// times or text. Columns of types that [`Form::of`] does not know are left out of segments.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] if a column does not exist, has two roles, or has no times;
    /// [`WarmError::Unsupported`] if a key column has another type.
    pub fn try_new(
        schema: SchemaRef,
        time: usize,
        keys: impl Into<Vec<usize>>,
    ) -> Result<Self, WarmError> {
        let keys = keys.into();
        let forms: Vec<_> =
            schema.fields().iter().map(|field| Form::of(field.data_type())).collect();
        let columns = forms.len();
        if let Some(&column) = keys.iter().chain([&time]).find(|column| **column >= columns) {
            return Err(Invalid::Column { column, columns }.into());
        }
        let name = |column: usize| schema.field(column).name().clone();
        let data_type = schema.field(time).data_type().clone();
        if !matches!(data_type, DataType::Timestamp(_, _)) {
            return Err(Invalid::TimeType { column: name(time), data_type }.into());
        }
        for (position, &key) in keys.iter().enumerate() {
            if key == time || keys[..position].contains(&key) {
                return Err(Invalid::RoleTwice { column: name(key) }.into());
            }
            if forms[key].is_none_or(Form::is_float) {
                let data_type = schema.field(key).data_type().clone();
                return Err(Unsupported::KeyType { column: name(key), data_type }.into());
            }
        }
        Ok(Self { schema, time, keys, forms, dictionary_bytes_max: 64 << 20 })
    }

    /// How many bytes the distinct texts of one column, or the distinct keys, may take.
    ///
    /// They live as long as the table. A seal that would need more is refused. Default: 64 MiB.
    #[must_use]
    pub fn with_dictionary_bytes_max(mut self, bytes: usize) -> Self {
        self.dictionary_bytes_max = bytes;
        self
    }

    /// The schema that batches come with.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A column as answers have it: as batches have it, but text that is no dictionary is `Utf8View`, so
    /// that rows of one text can share it.
    #[must_use]
    pub fn answer_field(&self, column: usize) -> Field {
        let field = self.schema.field(column).clone();
        match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => field.with_data_type(DataType::Utf8View),
            _ => field,
        }
    }

    /// Number of the time column.
    #[must_use]
    pub const fn time(&self) -> usize {
        self.time
    }

    /// Numbers of the key columns.
    #[must_use]
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// The place of a column among the key columns, if it is one.
    #[must_use]
    pub fn key_position(&self, column: usize) -> Option<usize> {
        self.keys.iter().position(|key| *key == column)
    }

    /// The bytes that the texts of one column, or the keys, may take.
    #[must_use]
    pub const fn dictionary_bytes_max(&self) -> usize {
        self.dictionary_bytes_max
    }

    /// How many columns the schema has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.forms.len()
    }

    /// The form of a column.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] if there is no such column, [`WarmError::Unsupported`] if segments
    /// leave it out.
    pub fn form(&self, column: usize) -> Result<Form, WarmError> {
        match self.forms.get(column) {
            Some(Some(form)) => Ok(*form),
            Some(None) => {
                let (column, data_type) = self.name_and_type(column);
                Err(Unsupported::NotHeld { column, data_type }.into())
            }
            None => Err(Invalid::Column { column, columns: self.forms.len() }.into()),
        }
    }

    /// Name and type of a column that exists, for messages.
    pub(crate) fn name_and_type(&self, column: usize) -> (String, DataType) {
        let field = self.schema.field(column);
        (field.name().clone(), field.data_type().clone())
    }
}
