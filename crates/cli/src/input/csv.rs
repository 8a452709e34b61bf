//! Comma-separated text: UTF-8, a header line, one record a line.
//!
//! The text is read twice, record by record: once to see what each column holds, where the series
//! does not say, and once into typed arrays. Beyond the text itself only the arrays are kept.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};

use crate::error::{Error, Result};
use crate::input::Expected;
use crate::input::infer::{Evidence, Role, roles};
use crate::input::values::Column;

/// Text columns count their bytes in 32 bits.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// Reads all rows of the text.
pub(crate) fn read(file: &str, bytes: &[u8], expected: &Expected) -> Result<RecordBatch> {
    let text = Text { file, text: decode(file, bytes)? };
    text.check_quotes()?;
    let names = text.names()?;
    let roles = roles(&names, expected);
    let types = match &expected.columns {
        Some(columns) => text.declared(&names, columns)?,
        None => text.inferred(&roles)?,
    };
    let time = time_column(&roles, &types);
    let columns: Vec<Column> = types
        .iter()
        .enumerate()
        .map(|(i, data_type)| {
            if Some(i) == time {
                Column::of_event_times(data_type.clone(), expected.time_unit)
            } else {
                Column::new(data_type.clone())
            }
        })
        .collect();
    text.rows(&names, types, columns)
}

/// The column that must tell a time in every row, where that is certain before the series is asked.
fn time_column(roles: &[Role], types: &[DataType]) -> Option<usize> {
    let named = roles.iter().position(|role| *role == Role::Time);
    named.or_else(|| {
        let mut timestamps =
            (0..types.len()).filter(|i| matches!(types[*i], DataType::Timestamp(..)));
        timestamps.next().filter(|_| timestamps.next().is_none())
    })
}

fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str> {
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(Error::input(
            file,
            "it is larger than 2 GiB, too large for one version; split it, or write Parquet",
        ));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(Error::input(file, "it is UTF-16; write it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        Error::input(file, format!("line {line}: byte 0x{byte:02X} is not UTF-8; convert the file"))
    })
}

/// Where a scan for quotes stands; with the place of the quote that opened the field.
#[derive(Clone, Copy)]
enum Quotes {
    FieldStart,
    Plain,
    Open(usize),
    Closed(usize),
}

/// The text of one file.
struct Text<'a> {
    file: &'a str,
    text: &'a str,
}

impl Text<'_> {
    fn reader(&self) -> Reader<&[u8]> {
        ReaderBuilder::new().has_headers(true).from_reader(self.text.as_bytes())
    }

    fn fail(&self, message: impl Into<String>) -> Error {
        Error::input(self.file, message)
    }

    /// A quote that is never closed would make one field of all that follows it.
    fn check_quotes(&self) -> Result<()> {
        let mut state = Quotes::FieldStart;
        for (at, byte) in self.text.bytes().enumerate() {
            state = match (state, byte) {
                (Quotes::FieldStart, b'"') => Quotes::Open(at),
                // A doubled quote stands for one and leaves the field open.
                (Quotes::Closed(since), b'"') => Quotes::Open(since),
                (Quotes::Open(since), b'"') => Quotes::Closed(since),
                (Quotes::Open(since), _) => Quotes::Open(since),
                (_, b',' | b'\n' | b'\r') => Quotes::FieldStart,
                _ => Quotes::Plain,
            };
        }
        match state {
            Quotes::Open(since) => Err(self.fail(format!(
                "line {}: a quoted field is not closed before the end of the file",
                self.line_at(since)
            ))),
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut reader = self.reader();
        let header = reader.headers().map_err(|error| self.csv_error(&error))?;
        let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        match names.as_slice() {
            [] => Err(self.fail("it is empty; a header line with the columns' names is needed")),
            [only] if only.contains([';', '\t']) => {
                Err(self.fail("line 1: the names are not separated by commas; separate by commas"))
            }
            _ => Ok(names),
        }
    }

    /// The series' types of the columns named.
    fn declared(&self, names: &[String], columns: &SchemaRef) -> Result<Vec<DataType>> {
        names
            .iter()
            .map(|name| match columns.field_with_name(name) {
                Ok(field) => Ok(field.data_type().clone()),
                Err(_) => {
                    let known: Vec<&str> =
                        columns.fields().iter().map(|field| field.name().as_str()).collect();
                    Err(self.fail(format!(
                        "line 1: the series has no column {name:?}, it has {}; leave the column \
                         out, or append to another series",
                        known.join(", ")
                    )))
                }
            })
            .collect()
    }

    fn inferred(&self, roles: &[Role]) -> Result<Vec<DataType>> {
        let mut evidence = vec![Evidence::default(); roles.len()];
        self.for_each(|record| {
            evidence.iter_mut().zip(record).for_each(|(column, field)| column.add(field));
            Ok(())
        })?;
        Ok(evidence.iter().zip(roles).map(|(column, role)| column.data_type(*role)).collect())
    }

    fn rows(
        &self,
        names: &[String],
        types: Vec<DataType>,
        mut columns: Vec<Column>,
    ) -> Result<RecordBatch> {
        self.for_each(|record| {
            for (i, field) in record.iter().enumerate() {
                columns[i].add(field).map_err(|bad| {
                    let line = self.line_of_record(record.position());
                    self.fail(format!("line {line}: column {:?}: {}", names[i], bad.reason))
                })?;
            }
            Ok(())
        })?;
        let mut arrays = Vec::with_capacity(columns.len());
        for (column, name) in columns.iter_mut().zip(names) {
            arrays.push(column.finish().map_err(|bad| {
                let line = bad.row.and_then(|row| self.line_of(row));
                let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                self.fail(format!("{place}column {name:?}: {}", bad.reason))
            })?);
        }
        let fields: Vec<Field> =
            names.iter().zip(types).map(|(name, t)| Field::new(name, t, true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .map_err(|error| self.fail(error.to_string()))
    }

    fn for_each(&self, mut each: impl FnMut(&StringRecord) -> Result<()>) -> Result<()> {
        let mut reader = self.reader();
        let mut record = StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| self.csv_error(&error))? {
            each(&record)?;
        }
        Ok(())
    }

    /// The line on which a row, counted from 0, begins.
    fn line_of(&self, row: usize) -> Option<usize> {
        let mut reader = self.reader();
        let record = reader.records().nth(row)?.ok()?;
        Some(self.line_of_record(record.position()))
    }

    /// The reader counts from the end of the record before: blank lines and the second half of a
    /// line's end may lie between.
    fn line_of_record(&self, position: Option<&csv::Position>) -> usize {
        let end = position.and_then(|position| usize::try_from(position.byte()).ok());
        let end = end.unwrap_or_default();
        let rest = self.text.as_bytes().get(end..).unwrap_or_default();
        self.line_at(end + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count())
    }

    fn line_at(&self, byte: usize) -> usize {
        1 + self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
    }

    fn csv_error(&self, error: &csv::Error) -> Error {
        match error.kind() {
            ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = self.line_of_record(pos.as_ref());
                self.fail(format!(
                    "line {line}: {len} fields where the header has {expected_len}; correct it"
                ))
            }
            _ => self.fail(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, TimeUnit, TimestampMicrosecondType};

    use super::*;

    fn read_text(text: impl AsRef<[u8]>) -> Result<RecordBatch> {
        read("a.csv", text.as_ref(), &Expected::default())
    }

    fn message(text: impl AsRef<[u8]>) -> String {
        read_text(text).unwrap_err().line()
    }

    #[test]
    fn rows_with_inferred_types() {
        let text = "\u{feff}time, value ,who\r\n2024-01-31T12:00:00Z,1,a\r\n\r\n2024-02-01,NA,\"b, \"\"c\"\"\nd\"\r\n";
        let batch = read_text(text).unwrap();
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = batch.schema();
        let types: Vec<&DataType> = schema.fields().iter().map(|f| f.data_type()).collect();
        assert_eq!(types, [&utc, &DataType::Float64, &DataType::Utf8]);
        assert_eq!(schema.field(1).name(), "value");
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_706_702_400_000_000);
        let values = batch.column(1).as_primitive::<Float64Type>();
        assert!(values.value(0) == 1.0 && values.is_null(1));
        assert_eq!(batch.column(2).as_string::<i32>().value(1), "b, \"c\"\nd");
    }

    #[test]
    fn a_header_alone_is_no_rows_and_nothing_is_an_error() {
        assert_eq!(read_text("time,value\n").unwrap().num_rows(), 0);
        assert!(message("").contains("empty"));
        assert!(message("time;value\n").contains("commas"));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("time,v\n2024-01-01,1\n2024-01-02\n", "a.csv: line 3: 1 fields"),
            ("time,v\r\n2024-01-01,1\r\n\r\n2024-01-02,1,2\r\n", "a.csv: line 4: 3 fields"),
            ("time,v\n2024-01-01,\"x\ny\"\n2024-01-02\n", "a.csv: line 4: 1 fields"),
            ("time,v\n2024-01-01,1\nNA,1\n", "a.csv: line 3: column \"time\": is null"),
            ("time,v\n2024-01-01,\"x\n2024-01-02,2\n", "a.csv: line 2: a quoted field"),
            ("when,v\n1500-01-01,1\n", "a.csv: line 2: column \"when\": 1500-01-01 lies outside"),
        ] {
            let found = message(text);
            assert!(found.starts_with(expected), "{found}");
        }
        assert!(message(b"time,v\n2024-01-01,\xff\n").starts_with("a.csv: line 2: byte 0xFF"));
        assert!(message(b"\xff\xfet\0").contains("UTF-16"));
    }

    #[test]
    fn quotes_inside_fields_are_as_the_parser_takes_them() {
        for text in [
            "time,v\n2024-01-01,\"a\"\"b\"\n",
            "time,v\n2024-01-01,5\" pipe\n",
            "time,v\n2024-01-01,\"\"\n",
        ] {
            assert!(read_text(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_series_columns_decide_the_types() {
        let first = read_text("time,v,flag\n2024-01-01,1,x\n").unwrap();
        let fields = vec![
            first.schema().field(0).clone(),
            Field::new("v", DataType::Int16, true),
            Field::new("flag", DataType::Boolean, true),
        ];
        let expected =
            Expected { columns: Some(Arc::new(Schema::new(fields))), ..Expected::default() };
        let read = |text: &str| read("b.csv", text.as_bytes(), &expected);
        let batch = read("flag,time\ntrue,2024-01-01\n").unwrap();
        assert_eq!(batch.column(0).data_type(), &DataType::Boolean);
        for (text, expected) in [
            ("time,v\n2024-01-01,1\n2024-01-02,99999\n", "b.csv: line 3: column \"v\": holds no"),
            ("time,w\n2024-01-01,1\n", "b.csv: line 1: the series has no column \"w\""),
        ] {
            let found = read(text).unwrap_err().line();
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn whole_numbers_of_time_stay_whole() {
        let expected = Expected { time_column: Some("t".into()), ..Expected::default() };
        let batch = read("a.csv", b"t,v\n1700000000123456789,1\n", &expected).unwrap();
        assert_eq!(batch.column(0).data_type(), &DataType::Int64);
    }
}
