//! Workloads of how data lie in files: few, large and sorted, whatever was appended.

pub(crate) mod compacted;
pub(crate) mod dedup;
pub(crate) mod large;
pub(crate) mod late_data;
pub(crate) mod overlap;
pub(crate) mod tsbs_size;
