//! How the columns of a file are written: encoding and codec of each, chosen before its rows are.
//!
//! A sample of the rows, in stretches as they follow one another in the file, is encoded in each way that
//! suits the type of a column, and the smallest is taken: a dictionary where values repeat, deltas where
//! integers and times grow steadily, split byte streams where doubles are alike in their high bytes,
//! plain values where nothing helps. Which one that is depends on the order of rows as much as on the
//! values.
//!
//! Unless a codec was asked for, dictionaries lie under LZ4 and all else under zstd, and a dictionary is
//! taken also where it is a little larger: a zstd context is made for every column chunk that is read and
//! costs more than decompressing a small or dictionary-coded chunk, which zstd shrinks little beyond LZ4. Of
//! flushed files, which are merged soon, many are read at once for a few rows of each: all is under LZ4.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tidelog_oplog::{Codec, FileOrder, Layout};

use crate::hot::memory_of;
use crate::series_schema::{SeriesSchema, UNTIL_COLUMN, VERSION_COLUMN};

/// For files that are made while somebody waits, or merged once more.
const ZSTD_LEVEL_QUICK: i32 = 3;
/// For files that last. It makes measured values smaller by some 8 %, which levels up to 12 do hardly
/// better, in twice the time of the codec.
const ZSTD_LEVEL_LASTING: i32 = 5;
/// Rows of a page: the fewer, the less is read for a few rows in vain.
const PAGE_ROWS: usize = 8192;
/// Of files that are soon merged, many are read at once for a few rows of each.
const PAGE_ROWS_QUICK: usize = 2048;
/// Where rows lie by key, a few rows of one key are asked for more often.
const PAGE_ROWS_BY_KEY: usize = 6144;
/// Files of fewer rows are too small for encodings to be tried, and for zstd to pay.
const TRIAL_FROM_ROWS: usize = 8192;
/// Encodings are tried with one of so many rows, ...
const TRIAL_PART: usize = 16;
/// ... but at least so many, ...
const TRIAL_ROWS_MIN: usize = 1024;
/// ... and at most so many, ...
const TRIAL_ROWS_MAX: usize = 8192;
/// ... in so many stretches.
const TRIAL_STRETCHES: usize = 4;
/// A dictionary, which is read fast, may be so much larger than the smallest, in percent.
const DICTIONARY_PERCENT: u64 = 115;
/// Texts of which a sample has one distinct value among so many at most are not tried.
const TEXTS_REPEAT: usize = 8;

/// What is known of the rows of a file before they are written.
#[derive(Debug)]
pub(crate) struct Expected {
    /// How many there are, about.
    pub(crate) rows: usize,
    /// Bytes that the file takes, about.
    pub(crate) bytes: usize,
    /// Of each column whether there may be a NaN in it.
    pub(crate) may_hold_nan: Vec<bool>,
}

impl Expected {
    /// What `pieces` tell, which hold the rows together.
    pub(crate) fn of(pieces: &[RecordBatch]) -> Self {
        let columns = pieces.first().map_or(0, RecordBatch::num_columns);
        let holds_nan = |column: usize| pieces.iter().any(|piece| holds_nan(piece.column(column)));
        Self {
            rows: pieces.iter().map(RecordBatch::num_rows).sum(),
            bytes: pieces.iter().map(memory_of).sum::<usize>() / 2,
            may_hold_nan: (0..columns).map(holds_nan).collect(),
        }
    }
}

/// How the columns of a file are written.
pub(crate) struct Style {
    pub(super) properties: std::result::Result<WriterProperties, String>,
    /// Bytes that the file takes, about.
    pub(super) estimate: usize,
    pub(super) layout: Layout,
}

impl Style {
    /// For a file of the series whose rows are in order of event time whatever the order of its files
    /// is, and begin with `first`.
    pub(crate) fn in_time_order(
        schema: &SeriesSchema,
        first: &RecordBatch,
        expected: &Expected,
    ) -> Self {
        let pace = Pace { page_rows: PAGE_ROWS_QUICK, zstd_level: Some(ZSTD_LEVEL_QUICK) };
        let layout = schema.layout().in_order(FileOrder::Time);
        Self::new(layout, &first.schema(), first.columns(), expected, pace)
    }

    /// The same for a file of a flush.
    pub(crate) fn flushed(schema: &SeriesSchema, first: &RecordBatch, expected: &Expected) -> Self {
        let pace = Pace { page_rows: PAGE_ROWS_QUICK, zstd_level: None };
        let layout = schema.layout().in_order(FileOrder::Time);
        Self::new(layout, &first.schema(), first.columns(), expected, pace)
    }

    /// For a file of these columns that lasts, or else is merged once more, the rows of which begin as
    /// `sample`; of a dictionary column the sample may be empty.
    pub(crate) fn merged(
        layout: Layout,
        columns: &Schema,
        sample: &[ArrayRef],
        expected: &Expected,
        lasts: bool,
    ) -> Self {
        let page_rows = match layout.order {
            FileOrder::Time if lasts => PAGE_ROWS,
            FileOrder::Time => PAGE_ROWS_QUICK,
            FileOrder::KeyTime => PAGE_ROWS_BY_KEY,
        };
        let zstd_level = if lasts { ZSTD_LEVEL_LASTING } else { ZSTD_LEVEL_QUICK };
        let pace = Pace { page_rows, zstd_level: Some(zstd_level) };
        Self::new(layout, columns, sample, expected, pace)
    }

    fn new(
        layout: Layout,
        columns: &Schema,
        sample: &[ArrayRef],
        expected: &Expected,
        pace: Pace,
    ) -> Self {
        let properties = properties(&layout, columns, sample, expected, pace);
        Self {
            properties: properties.map_err(|error| error.to_string()),
            estimate: expected.bytes + expected.bytes / 8 + 16 * 1024,
            layout,
        }
    }
}

/// What depends on how long a file is to last.
#[derive(Debug, Clone, Copy)]
struct Pace {
    page_rows: usize,
    /// The level of zstd, where no codec was asked for; LZ4 if absent.
    zstd_level: Option<i32>,
}

fn properties(
    layout: &Layout,
    columns: &Schema,
    sample: &[ArrayRef],
    expected: &Expected,
    pace: Pace,
) -> Result<WriterProperties> {
    let codecs = Codecs::of(layout.codec, expected.rows, pace.zstd_level)?;
    let group_rows = usize::try_from(layout.row_group_rows).unwrap_or(usize::MAX);
    let mut builder = WriterProperties::builder()
        .set_compression(codecs.values)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(group_rows))
        .set_data_page_row_count_limit(pace.page_rows)
        .set_created_by(concat!("tidelog ", env!("CARGO_PKG_VERSION")).to_owned());
    for (index, (field, column)) in columns.fields().iter().zip(sample).enumerate() {
        let way = match [VERSION_COLUMN, UNTIL_COLUMN].contains(&field.name().as_str()) {
            true => Way::Values(Encoding::DELTA_BINARY_PACKED),
            false => chosen(column, expected.rows.min(group_rows), &codecs)?,
        };
        builder = way.apply(builder, field.name(), &codecs);
        if expected.may_hold_nan.get(index).copied().unwrap_or(false) {
            // Parquet leaves NaN out of its bounds, but it compares as the greatest value: a page
            // would be skipped that has rows to show.
            let path = ColumnPath::from(field.name().as_str());
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    Ok(builder.build())
}

/// What lies over the encodings.
struct Codecs {
    dictionary: Compression,
    values: Compression,
    /// Whether a dictionary is worth a few bytes.
    prefers_dictionary: bool,
}

impl Codecs {
    /// `zstd_level` is that of a file for which no codec was asked for; LZ4 if absent.
    fn of(codec: Codec, rows: usize, zstd_level: Option<i32>) -> Result<Self> {
        let zstd_level = zstd_level.filter(|_| rows >= TRIAL_FROM_ROWS);
        let (dictionary, values) = match codec {
            Codec::Auto => {
                (Compression::LZ4_RAW, zstd_level.map_or(Ok(Compression::LZ4_RAW), zstd)?)
            }
            Codec::Zstd(level) => (zstd(level)?, zstd(level)?),
            Codec::Lz4 => (Compression::LZ4_RAW, Compression::LZ4_RAW),
            Codec::None => (Compression::UNCOMPRESSED, Compression::UNCOMPRESSED),
        };
        Ok(Self { dictionary, values, prefers_dictionary: codec == Codec::Auto })
    }
}

fn zstd(level: i32) -> Result<Compression> {
    Ok(Compression::ZSTD(ZstdLevel::try_new(level)?))
}

/// How a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As the Parquet writer has it: a dictionary, until it grows too large.
    Default,
    Dictionary,
    Values(Encoding),
}

impl Way {
    fn apply(
        self,
        builder: WriterPropertiesBuilder,
        column: &str,
        codecs: &Codecs,
    ) -> WriterPropertiesBuilder {
        let path = ColumnPath::from(column);
        match self {
            Self::Default => builder,
            Self::Dictionary => builder.set_column_compression(path, codecs.dictionary),
            Self::Values(encoding) => builder
                .set_column_compression(path.clone(), codecs.values)
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding),
        }
    }

    /// The ways that suit a type, the dictionary first; none where nothing is to be chosen.
    fn of_type(data_type: &DataType) -> &'static [Self] {
        match data_type {
            DataType::Float32 | DataType::Float64 => &[
                Self::Dictionary,
                Self::Values(Encoding::BYTE_STREAM_SPLIT),
                Self::Values(Encoding::PLAIN),
            ],
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                &[Self::Dictionary, Self::Values(Encoding::DELTA_BINARY_PACKED)]
            }
            data_type if data_type.is_integer() => &[
                Self::Dictionary,
                Self::Values(Encoding::DELTA_BINARY_PACKED),
                Self::Values(Encoding::PLAIN),
            ],
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                &[Self::Dictionary, Self::Values(Encoding::PLAIN)]
            }
            _ => &[],
        }
    }
}

/// How a column is written in row groups of `rows` rows.
fn chosen(column: &ArrayRef, rows: usize, codecs: &Codecs) -> Result<Way> {
    let ways = Way::of_type(column.data_type());
    match column.data_type() {
        DataType::Dictionary(..) | DataType::Boolean => return Ok(Way::Dictionary),
        _ if ways.is_empty() || column.is_empty() => return Ok(Way::Default),
        _ => {}
    }
    let sample = stretches(column, rows)?;
    let distinct = distinct(&sample);
    let repeats = distinct * 2 <= sample.len();
    if rows < TRIAL_FROM_ROWS {
        return Ok(if repeats { Way::Dictionary } else { ways[1] });
    }
    let is_text = ways.contains(&Way::Values(Encoding::PLAIN)) && ways.len() == 2;
    if is_text && distinct * TEXTS_REPEAT <= sample.len() {
        return Ok(Way::Dictionary);
    }
    let mut best: Option<(u64, Way)> = None;
    for way in ways {
        let mut bytes = tried(&sample, *way, codecs, rows, repeats)?;
        if *way == Way::Dictionary && codecs.prefers_dictionary {
            bytes = bytes * 100 / DICTIONARY_PERCENT;
        }
        if best.is_none_or(|(least, _)| bytes < least) {
            best = Some((bytes, *way));
        }
    }
    Ok(best.map_or(Way::Dictionary, |(_, way)| way))
}

/// Some rows of a column, in a few stretches.
fn stretches(column: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    let wanted = (rows / TRIAL_PART).clamp(TRIAL_ROWS_MIN, TRIAL_ROWS_MAX);
    if column.len() <= wanted {
        return Ok(Arc::clone(column));
    }
    let length = wanted / TRIAL_STRETCHES;
    let distance = (column.len() - length) / (TRIAL_STRETCHES - 1);
    let parts: Vec<ArrayRef> =
        (0..TRIAL_STRETCHES).map(|part| column.slice(part * distance, length)).collect();
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(concat(&parts)?)
}

/// Bytes of a sample that is written in one way.
fn tried(sample: &ArrayRef, way: Way, codecs: &Codecs, rows: usize, repeats: bool) -> Result<u64> {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(sample), true)])?;
    let builder = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    let properties = way.apply(builder, "c", codecs).build();
    let mut writer = ArrowWriter::try_new(std::io::sink(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    let metadata = writer.close()?;
    let Some(chunk) = metadata.row_groups().first().map(|group| group.column(0)) else {
        return Ok(u64::MAX);
    };
    let bytes = chunk.compressed_size().unsigned_abs();
    let dictionary = chunk.dictionary_page_offset();
    let dictionary =
        dictionary.map_or(0, |start| (chunk.data_page_offset() - start).unsigned_abs());
    if !repeats {
        return Ok(bytes);
    }
    // All of a row group share one, which hardly grows any more.
    let shared = dictionary * sample.len() as u64 / (rows as u64).max(1);
    Ok(bytes - dictionary + shared.min(dictionary))
}

/// How many values a sample has.
fn distinct(sample: &ArrayRef) -> usize {
    fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> usize {
        values.collect::<HashSet<_>>().len()
    }
    match sample.data_type() {
        DataType::Utf8 => texts(sample.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(sample.as_string::<i64>().iter()),
        DataType::Utf8View => texts(sample.as_string_view().iter()),
        _ => {
            // The rest are of fixed width.
            let data = sample.to_data();
            let width = sample.data_type().primitive_width().unwrap_or(1);
            let bytes = data.buffers().first().map(|buffer| buffer.as_slice()).unwrap_or_default();
            let start = data.offset() * width;
            let bytes = bytes.get(start..start + data.len() * width).unwrap_or_default();
            bytes.chunks(width).collect::<HashSet<_>>().len()
        }
    }
}

fn holds_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float16 => {
            column.as_primitive::<Float16Type>().iter().flatten().any(|value| value.is_nan())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    const ROWS: usize = 16_384;

    /// Numbers without a pattern.
    fn noise(count: usize) -> impl Iterator<Item = u64> {
        (1..=count as u64).map(|i| {
            let mixed = (i ^ (i >> 3)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        })
    }

    fn way(column: ArrayRef) -> Way {
        let codecs = Codecs::of(Codec::Auto, 1_000_000, Some(ZSTD_LEVEL_QUICK)).unwrap();
        chosen(&column, 131_072, &codecs).unwrap()
    }

    #[test]
    fn each_column_is_written_in_the_way_that_suits_its_values() {
        let split = Way::Values(Encoding::BYTE_STREAM_SPLIT);
        let deltas = Way::Values(Encoding::DELTA_BINARY_PACKED);
        let plain = Way::Values(Encoding::PLAIN);
        let doubles = |value: &dyn Fn(u64) -> f64| -> ArrayRef {
            Arc::new(noise(ROWS).map(value).map(Some).collect::<Float64Array>())
        };
        // Of few values in no order each takes a few bits.
        assert_eq!(way(doubles(&|n| (n % 100) as f64)), Way::Dictionary);
        // The high bytes of measured values are alike.
        assert_eq!(way(doubles(&|n| 20.0 + (n % 1_000_003) as f64 / 1e7)), split);
        // The same few values, but in long stretches of slow change, as they lie by key.
        let walk = (0..ROWS).map(|i| ((i as f64 / 600.0).sin() * 50.0 + 50.0).trunc());
        let way_of_walk = way(Arc::new(walk.map(Some).collect::<Float64Array>()));
        assert!(way_of_walk != plain, "{way_of_walk:?}");
        let times = (0..ROWS as i64).map(|i| 1_600_000_000_000_000 + i * 10_000_000);
        assert_eq!(way(Arc::new(TimestampMicrosecondArray::from_iter_values(times))), deltas);
        let counter = (0..ROWS as i64).map(|i| i * i / 7);
        assert_eq!(way(Arc::new(Int64Array::from_iter_values(counter))), deltas);
        let ids = noise(ROWS).map(u64::cast_signed);
        assert_eq!(way(Arc::new(Int64Array::from_iter_values(ids))), plain);
        let names = noise(ROWS).map(|n| Some(format!("host_{}", n % 50)));
        assert_eq!(way(Arc::new(names.collect::<StringArray>())), Way::Dictionary);
        let texts = noise(ROWS).map(|n| Some(format!("{n:x}")));
        assert_eq!(way(Arc::new(texts.collect::<StringArray>())), plain);
    }

    #[test]
    fn a_codec_that_is_asked_for_lies_over_all_encodings() {
        for (codec, compression) in [
            (Codec::Lz4, Compression::LZ4_RAW),
            (Codec::None, Compression::UNCOMPRESSED),
            (Codec::Zstd(7), zstd(7).unwrap()),
        ] {
            for rows in [10, 1_000_000] {
                let codecs = Codecs::of(codec, rows, Some(ZSTD_LEVEL_LASTING)).unwrap();
                assert_eq!((codecs.dictionary, codecs.values), (compression, compression));
            }
        }
    }

    #[test]
    fn zstd_is_for_files_that_are_not_soon_merged() {
        let of = |rows, zstd_level| Codecs::of(Codec::Auto, rows, zstd_level).unwrap();
        assert_eq!(of(1_000_000, None).values, Compression::LZ4_RAW);
        assert_eq!(of(1_000_000, Some(5)).values, zstd(5).unwrap());
        assert_eq!(of(1_000_000, Some(5)).dictionary, Compression::LZ4_RAW);
        assert_eq!(of(100, Some(5)).values, Compression::LZ4_RAW);
    }
}
