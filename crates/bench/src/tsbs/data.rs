//! The suite's data: a Tidelog series of hourly versions, and one Parquet file of the same rows for the others.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::generate::tsbs::{Cpu, HOUR_US, STEP_US, TIME_COLUMN, VALUES, schema};
use crate::options::{Built, Common, stored_bytes};
use crate::peer::Peer;
use crate::tidelog_side::Tidelog;
use crate::tsbs::queries::Extent;

/// The series, and the path that queries name.
pub(crate) const SERIES: &str = "/cpu";

/// What a build noted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Loaded {
    pub(crate) rows: usize,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// The one Parquet file, in time order.
pub(crate) fn parquet_file(common: &Common, extent: Extent) -> Result<(PathBuf, Loaded)> {
    let (built, notes) = Built::find(common, "tsbs-parquet", parameters(common, extent))?;
    let path = built.folder.join("cpu.parquet");
    if let Some(notes) = notes {
        return Ok((path, serde_json::from_value(notes)?));
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(131_072))
        // Statistics of pages make the writer keep a page index.
        .set_statistics_enabled(EnabledStatistics::Page)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(&path)?, schema(), Some(properties))?;
    let (mut rows, mut seconds) = (0, 0.0);
    let mut cpu = Cpu::new(common.seed, extent.hosts);
    for _ in 0..extent.hours {
        let batch = cpu.batch(steps_per_hour()?)?;
        let started = std::time::Instant::now();
        writer.write(&batch)?;
        seconds += started.elapsed().as_secs_f64();
        rows += batch.num_rows();
    }
    writer.close()?;
    let loaded = Loaded { rows, seconds, bytes: std::fs::metadata(&path)?.len() };
    built.complete(&json!(loaded))?;
    Ok((path, loaded))
}

/// The series: one version per hour.
pub(crate) async fn tidelog_store(common: &Common, extent: Extent) -> Result<(Tidelog, Loaded)> {
    let (built, notes) = Built::find(common, "tsbs-tidelog", parameters(common, extent))?;
    if let Some(notes) = notes {
        return Ok((Tidelog::open(&built.folder).await?, serde_json::from_value(notes)?));
    }
    let tidelog = Tidelog::open_or_create(&built.folder).await?;
    tidelog.create_keyed(SERIES, TIME_COLUMN, "hostname").await?;
    let (mut rows, mut seconds) = (0, 0.0);
    let mut cpu = Cpu::new(common.seed, extent.hosts);
    for _ in 0..extent.hours {
        let batch = cpu.batch(steps_per_hour()?)?;
        let started = std::time::Instant::now();
        tidelog.append(SERIES, &batch, TIME_COLUMN).await?;
        seconds += started.elapsed().as_secs_f64();
        rows += batch.num_rows();
    }
    let loaded = Loaded { rows, seconds, bytes: stored_bytes(&built.folder)? };
    built.complete(&json!(loaded))?;
    Ok((tidelog, loaded))
}

/// A peer's own table, loaded from the Parquet file; the peer is left open on it.
pub(crate) fn load_peer(
    peer: &mut Peer,
    common: &Common,
    extent: Extent,
    parquet: &Path,
    threads: usize,
) -> Result<Loaded> {
    #[derive(Deserialize)]
    struct Reply {
        ms: f64,
        rows: usize,
    }
    let name = format!("tsbs-{}", peer.name());
    let (built, notes) = Built::find(common, &name, parameters(common, extent))?;
    peer.open_with_threads(&built.folder, threads)?;
    if let Some(notes) = notes {
        return Ok(serde_json::from_value(notes)?);
    }
    let reply: Reply = peer.call("load", json!({ "parquet": parquet, "values": VALUES }))?;
    let rows = extent.hosts * extent.hours * steps_per_hour()?;
    ensure!(reply.rows == rows, "{} loaded {} of {rows} rows", peer.name(), reply.rows);
    let bytes = stored_bytes(&built.folder)?;
    let loaded = Loaded { rows, seconds: reply.ms / 1e3, bytes };
    built.complete(&json!(loaded))?;
    Ok(loaded)
}

/// All rows, in batches of an hour.
pub(crate) fn batches(common: &Common, extent: Extent) -> Result<Vec<RecordBatch>> {
    let mut cpu = Cpu::new(common.seed, extent.hosts);
    (0..extent.hours).map(|_| cpu.batch(steps_per_hour()?)).collect()
}

/// The folder of the series of [`tidelog_store`], which is built.
pub(crate) fn tidelog_folder(common: &Common, extent: Extent) -> Result<PathBuf> {
    Ok(Built::find(common, "tsbs-tidelog", parameters(common, extent))?.0.folder)
}

fn parameters(common: &Common, extent: Extent) -> serde_json::Value {
    json!({ "hosts": extent.hosts, "hours": extent.hours, "seed": common.seed })
}

fn steps_per_hour() -> Result<usize> {
    Ok(usize::try_from(HOUR_US / STEP_US)?)
}
