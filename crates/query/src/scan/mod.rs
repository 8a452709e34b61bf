//! The data source under a series table.
//!
//! | module | holds |
//! |---|---|
//! | [`files`] | a log row as DataFusion's file, with its statistics |
//! | [`layout`] | files laid end to end, in parallel groups or one chain; overlaps found |
//! | [`source`] | [`source::SeriesSource`]: the `DataSource` that plans see |
//! | [`merge_stream`] | the k-way merge of overlapping files as a stream |
//! | [`reader`] | readers that check what they read, for DataFusion |

pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod merge_stream;
pub(crate) mod reader;
pub(crate) mod source;
