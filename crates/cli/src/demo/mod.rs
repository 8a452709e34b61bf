//! The main job on real data: months of weather appended out of order, a late correction, and what
//! can be asked of them now and as they stood before. And many rows at speed ([`load`]).

mod data;
pub(crate) mod load;
mod plot;
mod story;

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type, SchemaRef};
use futures::TryStreamExt;
use serde_json::json;
use tidelog::{
    AsOf, ErrorKind, EventTime, ReadOptions, SeriesAppend, SeriesExt, SeriesOptions, Store,
    StoreBuilder, TimeRange, Version, WorkingDirectory,
};

use crate::commands::settle;
use crate::demo::data::Weather;
use crate::demo::story::Story;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::grouped;

const PATH: &str = "/weather/nyc.series";
/// The order in which the months arrive.
const ARRIVAL: [i8; 12] = [3, 11, 7, 1, 9, 5, 12, 2, 8, 4, 10, 6];
const BEFORE_CORRECTION: Version = Version::new(12);
/// The hours that the narration shows of the days in question.
const SHOWN: &str = "origin = 'JFK' AND extract(hour FROM time_hour) IN (0, 12)";

const MONTHS_SQL: &str = r#"SELECT to_char(date_trunc('month', time_hour), '%Y-%m') AS month,
       round(avg(temp) FILTER (WHERE origin = 'EWR'), 1) AS ewr,
       round(avg(temp) FILTER (WHERE origin = 'JFK'), 1) AS jfk,
       round(avg(temp) FILTER (WHERE origin = 'LGA'), 1) AS lga
FROM "/weather/nyc.series"
GROUP BY 1 ORDER BY 1"#;

const DAYS_SQL: &str = r#"SELECT CAST(avg(temp) AS REAL) AS temp FROM "/weather/nyc.series"
GROUP BY date_trunc('day', time_hour) ORDER BY date_trunc('day', time_hour)"#;

const PRUNED_SQL: &str = r#"EXPLAIN SELECT * FROM "/weather/nyc.series"
WHERE time_hour BETWEEN '2013-07-04T00:00:00Z' AND '2013-07-06T23:59:59Z'"#;

/// Makes a store in `dir`, as `builder` says, and tells the story.
pub(crate) async fn run(builder: StoreBuilder, dir: &str, json: bool) -> Result<()> {
    let mut story = Story::new(json);
    let store = create(builder, dir, &mut story).await?;
    let told = tell(&store, dir, story, json).await;
    settle(&store).await;
    told
}

async fn tell(store: &Store, dir: &str, mut story: Story, json: bool) -> Result<()> {
    let weather = Weather::load()?;
    let root = store.root();
    create_series(&root, &mut story).await?;
    append_months(&root, &weather, &mut story).await?;
    append_correction(&root, &weather, &mut story).await?;
    let range = july_days()?;
    let now = query_range(&root, range, &mut story).await?;
    query_as_of(&root, range, &now, &mut story).await?;
    let pruned = explain(store, &mut story).await?;
    months(store, &mut story).await?;
    plot_days(store, &mut story).await?;
    if json {
        return output::print_json(&json!({
            "store": dir,
            "series": PATH,
            "versions": BEFORE_CORRECTION.next().number(),
            "rows": weather.rows(),
            "read": pruned,
        }));
    }
    story.say(&go_on(dir))
}

async fn create(builder: StoreBuilder, dir: &str, story: &mut Story) -> Result<Store> {
    let created = builder.create().await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => taken(dir),
        _ => error.into(),
    })?;
    story.step_since_start(&format!("An empty store in {dir}"))?;
    story.done("made")?;
    Ok(created)
}

fn taken(dir: &str) -> Error {
    Error::Exists {
        message: format!(
            "there is a store in {dir} already; remove it (rm -r {dir}) or name another directory \
             (tidelog demo DIR)"
        ),
    }
}

async fn create_series(root: &WorkingDirectory, story: &mut Story) -> Result<()> {
    story.step(&format!("A series {PATH}: one row for each airport and hour"))?;
    story.command(&format!("series create {PATH} --time-column time_hour --key origin --dedup"))?;
    let options = SeriesOptions::default()
        .with_time_column("time_hour")
        .with_key_columns(["origin"])
        .with_dedup(true);
    root.create_series(PATH, options).await?;
    story.done("created")
}

async fn append_months(
    root: &WorkingDirectory,
    weather: &Weather,
    story: &mut Story,
) -> Result<()> {
    story.step("A year of hourly weather, month by month, out of order; each month a version")?;
    story.command(&format!("series append {PATH} 2013-03.csv"))?;
    let mut arrived = Vec::new();
    let mut rows = 0;
    for month in ARRIVAL {
        let append = SeriesAppend::new(PATH, weather.month_as_it_came(month)?);
        let receipt = root.append_series_data_with_options(append).await?;
        rows += receipt.rows;
        let version = receipt.version.unwrap_or_default();
        arrived.push(format!("{version} = 2013-{month:02}"));
    }
    for line in arrived.chunks(6) {
        story.say(&format!("   {}\n", line.join("   ")))?;
    }
    story.done(&format!("{} versions, {} rows, each safe on disk", arrived.len(), grouped(rows)))
}

async fn append_correction(
    root: &WorkingDirectory,
    weather: &Weather,
    story: &mut Story,
) -> Result<()> {
    story.step("A late correction: JFK's thermometer read 9 °F too high on 4, 5 and 6 July")?;
    story.say("   (We put the fault in when July was appended; this version takes it out.)\n")?;
    let receipt = root.append_series_data(PATH, &weather.correction()?, None).await?;
    let version = receipt.version.unwrap_or_default();
    story.done(&format!("{version}: {} rows that replace those of July's version", receipt.rows))
}

fn july_days() -> Result<TimeRange> {
    let now = tidelog::WriteTime::default();
    let start = EventTime::parse_start("2013-07-04", now).map_err(tidelog::Error::from)?;
    let end = EventTime::parse_end("2013-07-06", now).map_err(tidelog::Error::from)?;
    Ok(TimeRange::try_new(start, end).map_err(tidelog::Error::from)?)
}

async fn read(
    root: &WorkingDirectory,
    options: &ReadOptions,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let rows = root.read_series_with_options(PATH, options).await?;
    let schema = rows.schema();
    Ok((schema, rows.try_collect().await?))
}

fn shown(range: TimeRange) -> ReadOptions {
    ReadOptions::default()
        .with_range(range)
        .with_columns(["time_hour", "origin", "temp", "humid", "wind_speed"])
        .with_filter(SHOWN)
}

async fn query_range(
    root: &WorkingDirectory,
    range: TimeRange,
    story: &mut Story,
) -> Result<Vec<RecordBatch>> {
    story.step("Those days as they are known now (JFK, midnight and noon UTC)")?;
    story.command(&format!(
        "series query {PATH} --from 2013-07-04 --to 2013-07-06 \\\n       \
         --columns time_hour,origin,temp,humid,wind_speed \\\n       --where \"{SHOWN}\""
    ))?;
    let (schema, rows) = read(root, &shown(range)).await?;
    story.say(&output::table_of(&rows, &schema)?)?;
    story.done("read")?;
    Ok(rows)
}

async fn query_as_of(
    root: &WorkingDirectory,
    range: TimeRange,
    now: &[RecordBatch],
    story: &mut Story,
) -> Result<()> {
    story.step(&format!(
        "The same as of {BEFORE_CORRECTION}, before the correction: temp differs"
    ))?;
    story.command(&format!(
        "series query {PATH} --from 2013-07-04 --to 2013-07-06 --as-of {BEFORE_CORRECTION} …"
    ))?;
    let options = shown(range).with_as_of(AsOf::Version(BEFORE_CORRECTION));
    let (schema, rows) = read(root, &options).await?;
    story.say(&output::table_of(&rows, &schema)?)?;
    story.say(&format!("   temp {}\n", difference(&rows, now)))?;
    story.done("read")
}

/// How the temperatures then differ from those now.
fn difference(then: &[RecordBatch], now: &[RecordBatch]) -> String {
    let (then, now) = (temperatures(then), temperatures(now));
    let differences: Vec<f64> = then.iter().zip(&now).map(|(then, now)| then - now).collect();
    let highest = differences.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = differences.iter().copied().fold(f64::INFINITY, f64::min);
    format!("was {lowest:.1} to {highest:.1} °F higher in the {} rows shown", differences.len())
}

fn temperatures(rows: &[RecordBatch]) -> Vec<f64> {
    rows.iter()
        .filter_map(|batch| batch.column_by_name("temp")?.as_primitive_opt::<Float64Type>())
        .flat_map(|column| column.iter().flatten())
        .collect()
}

/// Shows what the log let the query skip; gives the words of the plan.
async fn explain(store: &Store, story: &mut Story) -> Result<String> {
    story.step("What those three days had to open, and what the log told them to skip")?;
    story
        .command("sql 'EXPLAIN SELECT * FROM \"/weather/nyc.series\" WHERE time_hour BETWEEN …'")?;
    let rows: Vec<RecordBatch> = store.sql(PRUNED_SQL).await?.try_collect().await?;
    let words = rows.iter().find_map(kept_words).ok_or_else(|| Error::Internal {
        message: "the plan of a query does not say what it reads".to_owned(),
    })?;
    story.say(&format!("   {words}\n"))?;
    story.done("planned")?;
    Ok(words)
}

/// `versions=2 of 13, files=2 of 13, row_groups=…` out of a plan.
fn kept_words(plan: &RecordBatch) -> Option<String> {
    let texts = plan.columns().last()?.as_string_opt::<i32>()?;
    let line =
        texts.iter().flatten().flat_map(str::lines).find(|line| line.contains("versions="))?;
    let start = line.find("versions=")?;
    let kept = line[start..].split(", ").filter(|part| part.contains(" of "));
    Some(kept.collect::<Vec<_>>().join(", ").replace('=', " "))
}

async fn months(store: &Store, story: &mut Story) -> Result<()> {
    story.step("SQL: mean temperature by month and airport, in °F")?;
    story.say(&indented(MONTHS_SQL))?;
    let rows = store.sql(MONTHS_SQL).await?;
    let schema = rows.schema();
    let rows: Vec<RecordBatch> = rows.try_collect().await?;
    story.say(&output::table_of(&rows, &schema)?)?;
    story.done("answered")
}

async fn plot_days(store: &Store, story: &mut Story) -> Result<()> {
    story.step("The mean of each day, in °F")?;
    let rows: Vec<RecordBatch> = store.sql(DAYS_SQL).await?.try_collect().await?;
    let means: Vec<f32> = rows
        .iter()
        .filter_map(|batch| batch.column(0).as_primitive_opt::<Float32Type>())
        .flat_map(|column| column.iter().flatten())
        .collect();
    story.say(&plot::line(&means))?;
    story.done(&format!("{} days, from 1 January to 30 December", means.len()))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

fn go_on(dir: &str) -> String {
    let dir = if Path::new(dir).is_absolute() || dir.starts_with('.') {
        dir.to_owned()
    } else {
        format!("./{dir}")
    };
    format!(
        "Go on from here:\n\
         \n   export TIDELOG_STORE={dir}\
         \n   tidelog ls -l '/**'\
         \n   tidelog describe {PATH}\
         \n   tidelog log {PATH}\
         \n   tidelog series query {PATH} --from 2013-12-24 --limit 5\
         \n   tidelog series query {PATH} -o weather.parquet\
         \n   tidelog sql 'SELECT origin, max(wind_speed) FROM \"{PATH}\" GROUP BY origin'\
         \n   tidelog series append {PATH} your.csv\
         \n   tidelog help\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_month_arrives_once() {
        let mut months = ARRIVAL;
        months.sort_unstable();
        assert_eq!(months, std::array::from_fn(|i| i8::try_from(i).unwrap() + 1));
    }
}
