//! Which files of a merge have gone: both that they were added and that they were removed is among its rows.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray};
use tidelog_core::FileId;

use crate::encode::{ADD, REMOVE};
use crate::error::Error;
use crate::schema::column;

/// Files by what was seen of them.
#[derive(Debug, Default)]
pub(super) struct Gone {
    added: HashSet<FileId>,
    removed: HashSet<FileId>,
}

impl Gone {
    /// Takes note of rows.
    pub(super) fn note(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let (ops, files) = columns(rows)?;
        for (op, file) in ops.iter().zip(files) {
            let Some(file) = file else { continue };
            match op {
                Some(ADD) => drop(self.added.insert(id(file)?)),
                Some(REMOVE) => drop(self.removed.insert(id(file)?)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Of each row whether it is of a file that has gone.
    pub(super) fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, Error> {
        if self.removed.is_empty() {
            return Ok(BooleanArray::from(vec![false; rows.num_rows()]));
        }
        let (_, files) = columns(rows)?;
        let is_gone = |file: Option<&str>| match file {
            Some(file) => {
                let file = id(file)?;
                Ok(self.removed.contains(&file) && self.added.contains(&file))
            }
            None => Ok(false),
        };
        let gone: Vec<bool> = files.iter().map(is_gone).collect::<Result<_, Error>>()?;
        Ok(gone.into())
    }
}

fn columns(rows: &RecordBatch) -> Result<(&StringArray, &StringArray), Error> {
    let text = |name: &str| rows.column_by_name(name)?.as_string_opt::<i32>();
    let found = text(column::OP).zip(text(column::FILE_ID));
    found.ok_or_else(|| Error::encode("rows without operations and files"))
}

fn id(text: &str) -> Result<FileId, Error> {
    FileId::parse(text).map_err(Error::encode)
}
