//! The contestants of the query workload behind one interface: run a statement to its last row.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col};
use serde::Deserialize;
use serde_json::json;

use super::answers::Answer;
use super::queries::Dialect;
use crate::generate::tsbs::{TIME_COLUMN, schema};
use crate::peer::Peer;
use crate::rounds::{Contestant, Sample};
use crate::tidelog_side::Tidelog;

#[async_trait(?Send)]
pub(crate) trait Engine {
    fn name(&self) -> &'static str;
    fn dialect(&self) -> Dialect;
    /// Runs the statement, all of its answer included; planning counts, as a user waits for it too.
    async fn time(&mut self, sql: &str) -> Result<Sample>;
    async fn answer(&mut self, sql: &str) -> Result<Answer>;
}

/// An engine with the statement of the current query.
pub(crate) struct Running<'a> {
    pub(crate) engine: &'a mut dyn Engine,
    pub(crate) sql: String,
}

#[async_trait(?Send)]
impl Contestant for Running<'_> {
    fn name(&self) -> String {
        self.engine.name().to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        self.engine.time(&self.sql).await
    }
}

pub(crate) struct TidelogEngine {
    pub(crate) name: &'static str,
    pub(crate) tidelog: Tidelog,
}

pub(crate) const TIDELOG: &str = "tidelog";

#[async_trait(?Send)]
impl Engine for TidelogEngine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dialect(&self) -> Dialect {
        Dialect::Tidelog
    }

    async fn time(&mut self, sql: &str) -> Result<Sample> {
        let started = Instant::now();
        let batches = self.tidelog.sql(sql).await?;
        let sample = Sample::timed(started);
        drop(batches);
        Ok(sample)
    }

    async fn answer(&mut self, sql: &str) -> Result<Answer> {
        Answer::of(&self.tidelog.sql(sql).await?)
    }
}

/// A table of DataFusion's own.
pub(crate) struct DataFusionEngine {
    context: SessionContext,
    name: &'static str,
}

pub(crate) const MEMORY: &str = "datafusion memtable";

pub(crate) const LISTING: &str = "datafusion listing";
pub(crate) const ORDERED_LISTING: &str = "datafusion listing, order declared";

impl DataFusionEngine {
    /// Rows in memory: the batches in order of time, a stretch of it for each thread, in pieces of the size
    /// that DataFusion works on.
    pub(crate) fn in_memory(batches: &[RecordBatch], threads: usize) -> Result<Self> {
        let config = SessionConfig::new().with_target_partitions(threads);
        let rows = config.batch_size();
        let pieces: Vec<RecordBatch> = batches
            .iter()
            .flat_map(|batch| {
                let starts = (0..batch.num_rows()).step_by(rows);
                starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start)))
            })
            .collect();
        let each = pieces.len().div_ceil(threads.max(1)).max(1);
        let partitions = pieces.chunks(each).map(<[RecordBatch]>::to_vec).collect();
        let table = MemTable::try_new(schema(), partitions)?;
        let context = SessionContext::new_with_config(config);
        context.register_table("cpu", Arc::new(table))?;
        Ok(Self { context, name: MEMORY })
    }

    /// One Parquet file, as anyone registers it. Caches are as it comes; metadata stay cached between queries.
    pub(crate) async fn listing(parquet: &Path, threads: usize) -> Result<Self> {
        Self::register(parquet, threads, LISTING, ParquetReadOptions::default()).await
    }

    /// The same with its order by time declared, which DataFusion does not find out by itself.
    pub(crate) async fn ordered_listing(parquet: &Path, threads: usize) -> Result<Self> {
        let order = vec![vec![col(TIME_COLUMN).sort(true, false)]];
        let options = ParquetReadOptions { file_sort_order: order, ..Default::default() };
        Self::register(parquet, threads, ORDERED_LISTING, options).await
    }

    async fn register(
        parquet: &Path,
        threads: usize,
        name: &'static str,
        options: ParquetReadOptions<'_>,
    ) -> Result<Self> {
        let config = SessionConfig::new()
            .with_target_partitions(threads)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        context.register_parquet("cpu", parquet.to_string_lossy(), options).await?;
        Ok(Self { context, name })
    }
}

#[async_trait(?Send)]
impl Engine for DataFusionEngine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dialect(&self) -> Dialect {
        Dialect::DataFusion
    }

    async fn time(&mut self, sql: &str) -> Result<Sample> {
        let started = Instant::now();
        let batches = self.context.sql(sql).await?.collect().await?;
        let sample = Sample::timed(started);
        drop(batches);
        Ok(sample)
    }

    async fn answer(&mut self, sql: &str) -> Result<Answer> {
        Answer::of(&self.context.sql(sql).await?.collect().await?)
    }
}

pub(crate) struct PeerEngine {
    pub(crate) peer: Peer,
    pub(crate) dialect: Dialect,
    /// Where the peer leaves an answer to be compared.
    pub(crate) answer_file: PathBuf,
}

#[derive(Deserialize)]
struct Reply {
    ms: f64,
}

#[async_trait(?Send)]
impl Engine for PeerEngine {
    fn name(&self) -> &'static str {
        self.peer.name()
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    async fn time(&mut self, sql: &str) -> Result<Sample> {
        let reply: Reply = self.peer.call("query", json!({ "sql": sql }))?;
        Ok(Sample { ms: reply.ms, answer: None })
    }

    async fn answer(&mut self, sql: &str) -> Result<Answer> {
        let args = json!({ "sql": sql, "save": self.answer_file });
        self.peer.call::<Reply>("query", args)?;
        Answer::read(&self.answer_file)
    }
}
