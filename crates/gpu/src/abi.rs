//! What kernels are given: the structs of `kernels/*.cu`, field by field.
//!
//! Each is passed by value as a kernel's only argument, or lies in an array that one of them points to. A
//! test compares their sizes with what the kernels' compiler says.
#![expect(unsafe_code, reason = "marks types as arguments of kernels")]

use cudarc::driver::DeviceRepr;
use tidelog_warm::Form;

/// An address in the device's memory, or 0 for none.
pub(crate) type Address = u64;

/// Threads of a block.
pub(crate) const BLOCK: u32 = 256;
/// Places that a block decides on at once.
pub(crate) const TILE: u32 = 2048;
/// Places that a block of `compact` looks at.
pub(crate) const COMPACT_TILE: u32 = BLOCK * 32;
/// Values of a digit, in sorting and selecting.
pub(crate) const DIGITS: u32 = 256;

/// Marks a type as the argument of a kernel, or an element of an array of the device.
macro_rules! device_types {
    ($($name:ident),* $(,)?) => {$(
        // SAFETY: `repr(C)`, of integers only, without padding that is not a field.
        unsafe impl DeviceRepr for $name {}
    )*};
}

device_types!(
    Column,
    Step,
    BoundsArgs,
    FilterArgs,
    CompactArgs,
    LastArgs,
    GatherOut,
    GatherArgs,
    ProbeArgs,
    AggregateArgs,
    OrderKey,
    Rank,
    CountDigitsArgs,
    MarkArgs,
    SortWordsArgs,
    SortArgs,
);

/// Plain data, whose bytes the device reads as they are.
///
/// # Safety
///
/// Of fixed layout and without padding.
pub(crate) unsafe trait Plain: Copy + 'static {
    /// The bytes of some values.
    fn bytes(values: &[Self]) -> &[u8] {
        // SAFETY: the type has no padding, and any byte may be read as a `u8`.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }
}

macro_rules! plain {
    ($($name:ident),* $(,)?) => {$(
        // SAFETY: integers, and `repr(C)` structs of integers whose padding is spelled out.
        unsafe impl Plain for $name {}
    )*};
}

plain!(u8, u32, u64, i64, Column, Step, GatherOut, OrderKey, Rank);

/// How a column's values lie.
pub(crate) fn kind_of(form: Form) -> u32 {
    match form {
        Form::Boolean => 0,
        Form::Int8 => 1,
        Form::Int16 => 2,
        Form::Int32 => 3,
        Form::Int64 => 4,
        Form::UInt8 => 5,
        Form::UInt16 => 6,
        Form::UInt32 | Form::Code => 7,
        Form::UInt64 => 8,
        Form::Float32 => 9,
        Form::Float64 => 10,
    }
}

/// The kind of a column that has one image for each piece.
pub(crate) const KIND_PIECE: u32 = 11;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Column {
    pub(crate) data: Address,
    pub(crate) valid: Address,
    pub(crate) kind: u32,
    pub(crate) encoding: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rows {
    pub(crate) piece_row: Address,
    pub(crate) piece_place: Address,
    pub(crate) columns: Address,
    pub(crate) program: Address,
    pub(crate) pieces: u32,
    pub(crate) places: u32,
    pub(crate) steps: u32,
    pub(crate) unused: u32,
}

/// What a [`Step`] does.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepOp {
    And,
    Or,
    Null,
    Range,
    Codes,
    Images,
    Pieces,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    pub(crate) op: u32,
    pub(crate) column: u32,
    pub(crate) negated: u32,
    pub(crate) unused: u32,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct BoundsArgs {
    pub(crate) times: Address,
    pub(crate) offsets: Address,
    pub(crate) first: Address,
    pub(crate) end: Address,
    pub(crate) least: i64,
    pub(crate) greatest: i64,
    pub(crate) keys: u32,
    pub(crate) unused: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FilterArgs {
    pub(crate) rows: Rows,
    pub(crate) bits: Address,
    pub(crate) count: Address,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactArgs {
    pub(crate) rows: Rows,
    pub(crate) bits: Address,
    pub(crate) out: Address,
    pub(crate) status: Address,
    pub(crate) ticket: Address,
    pub(crate) skip: u32,
    pub(crate) capacity: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastArgs {
    pub(crate) rows: Rows,
    pub(crate) out: Address,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherOut {
    pub(crate) data: Address,
    pub(crate) valid: Address,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherArgs {
    pub(crate) rows: Address,
    pub(crate) columns: Address,
    pub(crate) outs: Address,
    pub(crate) count: u32,
    pub(crate) column_count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeArgs {
    pub(crate) out: Address,
    pub(crate) seed: u32,
    pub(crate) count: u32,
}

/// Columns that one launch adds up.
pub(crate) const SLOTS_MAX: usize = 2;
/// Words of a record before its slots: piece, start of the bucket, rows.
pub(crate) const RECORD_HEAD: usize = 3;
/// Words of a slot: count, sum, what the sum lost by rounding, least and greatest image.
pub(crate) const SLOT_WORDS: usize = 5;

/// Words of a record.
pub(crate) const fn record_words(slots: usize) -> usize {
    RECORD_HEAD + slots * SLOT_WORDS
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AggregateArgs {
    pub(crate) rows: Rows,
    pub(crate) times: Address,
    pub(crate) records: Address,
    pub(crate) leads: Address,
    pub(crate) tile_runs: Address,
    pub(crate) status: Address,
    pub(crate) ticket: Address,
    pub(crate) run_count: Address,
    pub(crate) origin: i64,
    pub(crate) width: u64,
    pub(crate) first: u32,
    pub(crate) end: u32,
    pub(crate) capacity: u32,
    pub(crate) by_piece: u32,
    pub(crate) column: [u32; SLOTS_MAX],
    pub(crate) kind: [u32; SLOTS_MAX],
    pub(crate) as_float: [u32; SLOTS_MAX],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderKey {
    pub(crate) column: u32,
    pub(crate) descending: u32,
    pub(crate) nulls_first: u32,
    pub(crate) unused: u32,
}

/// The class of a value, between those of nulls that come first and last.
pub(crate) const CLASS_VALUE: u32 = 1;
/// The digit that stands for the class.
pub(crate) const DIGIT_CLASS: u32 = 8;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) digits: u64,
    pub(crate) class: u32,
    pub(crate) unused: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountDigitsArgs {
    pub(crate) rows: Rows,
    pub(crate) bits: Address,
    pub(crate) keys: Address,
    pub(crate) chosen: Address,
    pub(crate) counts: Address,
    pub(crate) key: u32,
    pub(crate) digit: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct MarkArgs {
    pub(crate) rows: Rows,
    pub(crate) bits: Address,
    pub(crate) keys: Address,
    pub(crate) chosen: Address,
    pub(crate) before: Address,
    pub(crate) equal: Address,
    pub(crate) key_count: u32,
    pub(crate) unused: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SortWordsArgs {
    pub(crate) numbers: Address,
    pub(crate) times: Address,
    pub(crate) words: Address,
    pub(crate) indices: Address,
    pub(crate) least: i64,
    pub(crate) shift: u32,
    pub(crate) parts: u32,
    pub(crate) count: u32,
    pub(crate) first: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SortArgs {
    pub(crate) words: Address,
    pub(crate) indices: Address,
    pub(crate) words_out: Address,
    pub(crate) indices_out: Address,
    pub(crate) counts: Address,
    pub(crate) status: Address,
    pub(crate) ticket: Address,
    pub(crate) count: u32,
    pub(crate) shift: u32,
}

/// The kernels, and the structs that they take.
pub(crate) const KERNELS: [(&str, usize); 18] = [
    ("probe", size_of::<ProbeArgs>()),
    ("bounds", size_of::<BoundsArgs>()),
    ("filter", size_of::<FilterArgs>()),
    ("compact", size_of::<CompactArgs>()),
    ("last", size_of::<LastArgs>()),
    ("gather", size_of::<GatherArgs>()),
    ("aggregate0", size_of::<AggregateArgs>()),
    ("aggregate1", size_of::<AggregateArgs>()),
    ("aggregate2", size_of::<AggregateArgs>()),
    ("fold0", size_of::<AggregateArgs>()),
    ("fold1", size_of::<AggregateArgs>()),
    ("fold2", size_of::<AggregateArgs>()),
    ("count_digits", size_of::<CountDigitsArgs>()),
    ("mark", size_of::<MarkArgs>()),
    ("sort_words", size_of::<SortWordsArgs>()),
    ("sort_count", size_of::<SortArgs>()),
    ("sort_scan", size_of::<SortArgs>()),
    ("sort_scatter", size_of::<SortArgs>()),
];

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    #[test]
    fn arguments_are_as_long_as_the_kernels_compiler_says() {
        let emulator = tidelog_gpu_emulator::Emulator::load().unwrap();
        for (kernel, bytes) in KERNELS {
            let name = CString::new(kernel).unwrap();
            assert_eq!(emulator.args_bytes(&name), bytes as u64, "{kernel}");
        }
    }
}
