//! How many rows of a file end with a change of data: only the columns that tell are read, and of these only
//! pages that may hold event times of the change.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog_oplog::FileRow;

use crate::compact::ending::{Ending, columns_at};
use crate::compact::input::{Chain, Next, Wanted, Within};
use crate::engine::Ground;
use crate::error::Error;
use crate::series_schema::SeriesSchema;

const BATCH_ROWS: usize = 8192;

/// How many rows of a file, all of which stand, the change would end if each were shown.
pub(super) async fn count(
    ground: &Ground,
    file: &Arc<FileRow>,
    schema: &SeriesSchema,
    ending: &Ending,
) -> Result<u64, Error> {
    let mut looking = Looking::new(file, schema, ending)?;
    let mut reader = ground.files.reader(Arc::clone(file));
    loop {
        let step = tokio::task::spawn_blocking(move || {
            let next = looking.step();
            (looking, next)
        });
        let (back, next) = step.await.map_err(|_| Error::Closed)?;
        looking = back;
        match next? {
            Next::Open(_) => looking.chain.opened(reader.footer().await?.metadata)?,
            Next::Fetch(ranges) => {
                let bytes = reader.ranges(ranges.clone()).await?;
                looking.chain.fetched(ranges, bytes)?;
            }
            Next::Rows(_) => {}
            Next::End => return Ok(looking.count),
        }
    }
}

struct Looking {
    chain: Chain,
    ending: Ending,
    count: u64,
}

impl Looking {
    fn new(file: &Arc<FileRow>, schema: &SeriesSchema, ending: &Ending) -> Result<Self, Error> {
        let places = ending.places();
        let columns = columns_at(schema, &places).map_err(|error| Error::Encode {
            path: file.path.clone(),
            reason: error.to_string(),
        })?;
        let wanted = Wanted {
            columns: Arc::new(columns),
            // The versions come after the columns of the series.
            version: places.len().saturating_sub(1),
            places: Some(places),
            batch_rows: BATCH_ROWS,
        };
        let chain = Chain::new(VecDeque::from([Arc::clone(file)]), wanted);
        let chain = match ending.times(file) {
            Some(times) => {
                chain.within(Within { path: file.path.clone(), schema: schema.clone(), times })
            }
            None => chain,
        };
        Ok(Self { chain, ending: ending.clone(), count: 0 })
    }

    /// Looks at rows until something else is wanted.
    fn step(&mut self) -> Result<Next, Error> {
        loop {
            match self.chain.next()? {
                Next::Rows(rows) => self.count += self.ending.ends(&rows)?.true_count() as u64,
                next => return Ok(next),
            }
        }
    }
}
