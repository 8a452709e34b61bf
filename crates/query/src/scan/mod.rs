//! The data source under a series table.
//!
//! | module | holds |
//! |---|---|
//! | [`facts`] | what a scan reads and what its columns mean |
//! | [`files`] | a log row, or a piece in memory, as DataFusion's file, with its statistics |
//! | [`layout`] | files laid end to end, in parallel groups or one chain; overlaps found |
//! | [`source`] | [`source::SeriesSource`]: the scan, and how its files are laid out |
//! | [`data_source`] | what plans ask of it: DataFusion's `DataSource` |
//! | [`order`] | the orders of event time that it can take on |
//! | [`cut`] | a range of event time that only some files have to evaluate |
//! | [`open`] | its files as streams of rows |
//! | [`newest`] | the newest rows of each key, without decoding most of the others |
//! | [`merge_stream`] | the k-way merge of overlapping files as a stream |
//! | [`tiers`] | what opens files: DataFusion's Parquet source, and pieces in memory beside it |
//! | [`reader`] | readers that check what they read, for DataFusion |

pub(crate) mod cut;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod reader;
pub(crate) mod source;
pub(crate) mod tiers;

mod data_source;
mod merge_stream;
mod newest;
mod open;
mod order;
