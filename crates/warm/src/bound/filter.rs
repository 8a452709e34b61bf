//! Conditions on images, true or false.

use arrow::buffer::BooleanBuffer;

use crate::segment::{ColumnStats, SegmentStats};
use crate::table::KeyDirectory;

/// A condition on a row that is true or false.
///
/// Where the predicate is unknown this is false: without `Not`, that leads to the same rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// True for every row.
    Always,
    /// False for every row.
    Never,
    /// All of these are true. At least two, none of them an `All` or a constant.
    All(Vec<Self>),
    /// One of these is true. At least two, none of them an `Any` or a constant.
    Any(Vec<Self>),
    /// A test of one column.
    Leaf(Leaf),
}

/// A test of one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// The column: of keys, the time, or another that segments hold.
    pub column: usize,
    /// The test.
    pub test: Test,
}

/// A test of the image of a value. Except for [`Test::IsNull`], false for a null.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// There is no value.
    IsNull,
    /// There is a value.
    IsNotNull,
    /// The image is within these two, both included; or, if negated, it is not. `low <= high`.
    Range {
        /// The least image.
        low: i64,
        /// The greatest image.
        high: i64,
        /// Whether the image has to be elsewhere.
        negated: bool,
    },
    /// The image is one of these; or, if negated, it is not. At least two, ascending.
    OneOf {
        /// The images.
        images: Vec<i64>,
        /// Whether the image has to be another.
        negated: bool,
    },
    /// The bit of the code is set. Only for text; there is a bit for each code of the segments that
    /// the request is about.
    Codes(BooleanBuffer),
}

impl Test {
    /// A range, or what it comes to if it is empty or holds everything.
    pub(super) fn range(column: usize, low: i64, high: i64, negated: bool) -> Filter {
        let leaf = |test| Filter::Leaf(Leaf { column, test });
        match (low > high, (low, high) == (i64::MIN, i64::MAX)) {
            (true, _) if !negated => Filter::Never,
            (_, true) if negated => Filter::Never,
            (false, false) => leaf(Self::Range { low, high, negated }),
            _ => leaf(Self::IsNotNull),
        }
    }

    /// Whether a row with this image, or none for a null, meets the test.
    #[must_use]
    pub fn accepts(&self, image: Option<i64>) -> bool {
        match (self, image) {
            (Self::IsNull, image) => image.is_none(),
            (_, None) => false,
            (Self::IsNotNull, Some(_)) => true,
            (Self::Range { low, high, negated }, Some(image)) => {
                (*low..=*high).contains(&image) != *negated
            }
            (Self::OneOf { images, negated }, Some(image)) => {
                images.binary_search(&image).is_ok() != *negated
            }
            (Self::Codes(bits), Some(code)) => {
                usize::try_from(code).is_ok_and(|code| code < bits.len() && bits.value(code))
            }
        }
    }

    /// What is known of the test for all rows of a segment, if anything.
    fn known(&self, stats: &ColumnStats, rows: usize) -> Option<bool> {
        let Some((least, greatest)) = stats.images else {
            return Some(*self == Self::IsNull);
        };
        let no_null = stats.null_count == 0;
        // Whether every image of the segment, or none of them, is accepted.
        let (all, none) = match self {
            Self::IsNull => return (no_null || stats.null_count == rows).then_some(!no_null),
            Self::IsNotNull => (true, false),
            Self::Range { low, high, negated } => {
                let within = *low <= least && greatest <= *high;
                let apart = greatest < *low || *high < least;
                if *negated { (apart, within) } else { (within, apart) }
            }
            Self::OneOf { images, negated } => {
                let next = images.partition_point(|image| *image < least);
                let apart = images.get(next).is_none_or(|image| *image > greatest);
                let within = least == greatest && !apart;
                if *negated { (apart, within) } else { (within, apart) }
            }
            Self::Codes(_) if least == greatest => {
                let accepted = self.accepts(Some(least));
                (accepted, !accepted)
            }
            Self::Codes(_) => (false, false),
        };
        match (all && no_null, none) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

impl Filter {
    /// All of these are true.
    pub(super) fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(parts) => all.extend(parts),
                other => all.push(other),
            }
        }
        match all.len() {
            0 => Self::Always,
            1 => all.remove(0),
            _ => Self::All(all),
        }
    }

    /// One of these is true.
    pub(super) fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(parts) => any.extend(parts),
                other => any.push(other),
            }
        }
        match any.len() {
            0 => Self::Never,
            1 => any.remove(0),
            _ => Self::Any(any),
        }
    }

    /// This filter, with the tests decided of which something is known.
    fn decide(&self, known: &impl Fn(&Leaf) -> Option<bool>) -> Self {
        match self {
            Self::Always => Self::Always,
            Self::Never => Self::Never,
            Self::All(parts) => Self::all(parts.iter().map(|part| part.decide(known))),
            Self::Any(parts) => Self::any(parts.iter().map(|part| part.decide(known))),
            Self::Leaf(leaf) => match known(leaf) {
                Some(true) => Self::Always,
                Some(false) => Self::Never,
                None => self.clone(),
            },
        }
    }

    /// What is left to test of the rows of a segment.
    #[must_use]
    pub fn for_segment(&self, stats: &SegmentStats) -> Self {
        self.decide(&|leaf| {
            let column = stats.columns.get(leaf.column)?.as_ref()?;
            leaf.test.known(column, stats.rows)
        })
    }

    /// What is left to test of the rows of a key, given the numbers of the key columns.
    ///
    /// Nothing of the key columns is left.
    #[must_use]
    pub fn for_key(&self, directory: &KeyDirectory, columns: &[usize], key: u32) -> Self {
        self.decide(&|leaf| {
            let position = columns.iter().position(|column| *column == leaf.column)?;
            Some(leaf.test.accepts(directory.image(key, position)))
        })
    }

    /// Whether a column is tested that `which` names.
    #[must_use]
    pub fn tests(&self, which: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Always | Self::Never => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.tests(which)),
            Self::Leaf(leaf) => which(leaf.column),
        }
    }

    /// Takes the ranges of time that every row has to be in out of the filter.
    pub(super) fn split_time(
        self,
        column: usize,
        time: Option<(i64, i64)>,
    ) -> (Option<(i64, i64)>, Self) {
        let mut range = time;
        let mut narrow = |part: &Self| match part {
            Self::Leaf(Leaf { column: tested, test }) if *tested == column => match test {
                Test::Range { low, high, negated: false } => {
                    range = range
                        .map(|(first, last)| (first.max(*low), last.min(*high)))
                        .filter(|(first, last)| first <= last);
                    true
                }
                // No time is null.
                Test::IsNotNull => true,
                _ => false,
            },
            _ => false,
        };
        let rest = match self {
            Self::All(mut parts) => {
                parts.retain(|part| !narrow(part));
                Self::all(parts)
            }
            other if narrow(&other) => Self::Always,
            other => other,
        };
        match rest {
            Self::Never => (None, Self::Never),
            rest => (range, rest),
        }
    }
}
