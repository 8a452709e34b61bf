//! Files of the user's, each read whole into one record batch, because a file becomes one version.

mod csv;
mod infer;
mod parquet;
mod time;
mod values;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidelog::TimeUnit;

pub(crate) use parquet::silence_decoder_panics;

use crate::args::InputFormat;
use crate::error::{Error, Result};

/// A file to append.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    path: PathBuf,
    format: InputFormat,
}

/// What is known of the series that text is read for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// The columns; `None` before the first version.
    pub(crate) columns: Option<SchemaRef>,
    /// The time column, if it is named.
    pub(crate) time_column: Option<String>,
    /// The unit of a time column of whole numbers.
    pub(crate) time_unit: Option<TimeUnit>,
    /// The key columns.
    pub(crate) keys: Vec<String>,
}

impl InputFile {
    /// A file of a stated format, or of the one that its name tells.
    pub(crate) fn try_new(path: &Path, stated: Option<InputFormat>) -> Result<Self> {
        let is_stdin = path.as_os_str() == "-";
        let format = match stated {
            Some(InputFormat::Parquet) if is_stdin => {
                return Err(Error::usage(
                    "Parquet cannot be read from standard input; write it to a file",
                ));
            }
            Some(format) => format,
            None if is_stdin => InputFormat::Csv,
            None => by_name(path).ok_or_else(|| {
                Error::usage(format!(
                    "the name of {} does not tell its format; say --format csv or --format parquet",
                    path.display()
                ))
            })?,
        };
        Ok(Self { path: path.to_owned(), format })
    }

    /// The file's name for messages.
    pub(crate) fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.path.display().to_string() }
    }

    fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// Reads the rows.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what its format says; names file and line or reason.
    pub(crate) fn read(&self, expected: &Expected) -> Result<RecordBatch> {
        let name = self.name();
        match self.format {
            InputFormat::Csv => csv::read(&name, &self.bytes()?, expected),
            InputFormat::Parquet => parquet::read(&name, self.open()?),
        }
    }

    fn open(&self) -> Result<File> {
        let file = File::open(&self.path).map_err(|e| Error::file("reading", &self.path, e))?;
        match file.metadata() {
            Ok(facts) if facts.is_dir() => {
                Err(Error::file("reading", &self.path, io::ErrorKind::IsADirectory.into()))
            }
            _ => Ok(file),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = if self.is_stdin() {
            io::stdin().lock().read_to_end(&mut bytes)
        } else {
            self.open()?.read_to_end(&mut bytes)
        };
        read.map_err(|error| Error::file("reading", &self.path, error))?;
        Ok(bytes)
    }
}

fn by_name(path: &Path) -> Option<InputFormat> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Some(InputFormat::Csv),
        "parquet" | "pq" => Some(InputFormat::Parquet),
        _ => None,
    }
}

/// Reads CSV that is in memory already.
pub(crate) fn read_csv(name: &str, bytes: &[u8], expected: &Expected) -> Result<RecordBatch> {
    csv::read(name, bytes, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format_unless_it_is_stated() {
        let format =
            |name: &str, stated| InputFile::try_new(Path::new(name), stated).map(|f| f.format);
        assert_eq!(format("a/b.CSV", None).unwrap(), InputFormat::Csv);
        assert_eq!(format("b.parquet", None).unwrap(), InputFormat::Parquet);
        assert_eq!(format("-", None).unwrap(), InputFormat::Csv);
        assert_eq!(format("b.txt", Some(InputFormat::Csv)).unwrap(), InputFormat::Csv);
        for (name, stated) in [("b.txt", None), ("b", None), ("-", Some(InputFormat::Parquet))] {
            assert_eq!(format(name, stated).unwrap_err().exit_code(), 2, "{name}");
        }
    }
}
