//! Predicates with three truth values become filters with two.

use super::filter::{Filter, Leaf, Test};
use crate::error::{Unsupported, WarmError};
use crate::request::{Comparison, PREDICATE_DEPTH_MAX, Predicate};
use crate::spec::{Form, Place};
use crate::table::WarmTable;
use crate::value::Value;

/// The filter that is true for the rows for which the predicate is.
pub(super) fn bind(table: &WarmTable, predicate: &Predicate) -> Result<Filter, WarmError> {
    Binder { table }.bind(predicate, false, 1)
}

struct Binder<'a> {
    table: &'a WarmTable,
}

impl Binder<'_> {
    /// The filter that is true where the predicate is true, or, if negated, where it is false.
    ///
    /// A leaf that is unknown is neither, so both of its filters are false there. The laws of De
    /// Morgan hold for three truth values too.
    fn bind(
        &self,
        predicate: &Predicate,
        negated: bool,
        depth: usize,
    ) -> Result<Filter, WarmError> {
        if depth > PREDICATE_DEPTH_MAX {
            return Err(Unsupported::PredicateDepth.into());
        }
        let parts = |parts: &[Predicate]| {
            let parts = parts.iter().map(|part| self.bind(part, negated, depth + 1));
            parts.collect::<Result<Vec<_>, _>>()
        };
        match predicate {
            Predicate::And(of) if negated => Ok(Filter::any(parts(of)?)),
            Predicate::And(of) => Ok(Filter::all(parts(of)?)),
            Predicate::Or(of) if negated => Ok(Filter::all(parts(of)?)),
            Predicate::Or(of) => Ok(Filter::any(parts(of)?)),
            Predicate::Not(of) => self.bind(of, !negated, depth + 1),
            Predicate::Compare { column, op, value } => self.compare(*column, *op, value, negated),
            Predicate::Between { column, low, high } => {
                let parts = [(Comparison::GreaterOrEqual, low), (Comparison::LessOrEqual, high)]
                    .map(|(op, value)| self.compare(*column, op, value, negated));
                let [low, high] = parts;
                let parts = [low?, high?];
                Ok(if negated { Filter::any(parts) } else { joined(parts) })
            }
            Predicate::In { column, values } => self.one_of(*column, values, negated),
            Predicate::IsNull(column) => self.null(*column, !negated),
            Predicate::IsNotNull(column) => self.null(*column, negated),
        }
    }

    fn null(&self, column: usize, is_null: bool) -> Result<Filter, WarmError> {
        self.table.spec().form(column)?;
        let test = if is_null { Test::IsNull } else { Test::IsNotNull };
        Ok(Filter::Leaf(Leaf { column, test }))
    }

    fn compare(
        &self,
        column: usize,
        op: Comparison,
        value: &Value,
        negated: bool,
    ) -> Result<Filter, WarmError> {
        let form = self.table.spec().form(column)?;
        let op = if negated { opposite(op) } else { op };
        match (form, value) {
            (_, Value::Null) => Ok(Filter::Never),
            (Form::Code, Value::Text(text)) => Ok(self.compare_text(column, op, text)),
            (form, value) => match form.place(value) {
                Some(place) => Ok(in_range(column, op, place)),
                None => Err(self.literal(column, value)),
            },
        }
    }

    fn compare_text(&self, column: usize, op: Comparison, value: &str) -> Filter {
        if matches!(op, Comparison::Equal | Comparison::NotEqual) {
            let value = Value::Text(value.into());
            let place = self.table.image(column, &value).map_or(Place::Below, Place::At);
            return in_range(column, op, place);
        }
        let codes = self.table.codes_of(column, |text| match op {
            Comparison::Less => text < value,
            Comparison::LessOrEqual => text <= value,
            Comparison::Greater => text > value,
            _ => text >= value,
        });
        match codes.count_set_bits() {
            0 => Filter::Never,
            _ => Filter::Leaf(Leaf { column, test: Test::Codes(codes) }),
        }
    }

    fn one_of(&self, column: usize, values: &[Value], negated: bool) -> Result<Filter, WarmError> {
        let form = self.table.spec().form(column)?;
        let mut images = Vec::with_capacity(values.len());
        for value in values {
            match (form, value) {
                (_, Value::Null) => {}
                (Form::Code, Value::Text(_)) => images.extend(self.table.image(column, value)),
                (form, value) => match form.place(value) {
                    Some(Place::At(image)) => images.push(image),
                    Some(_) => {}
                    None => return Err(self.literal(column, value)),
                },
            }
        }
        images.sort_unstable();
        images.dedup();
        Ok(match images.as_slice() {
            _ if values.is_empty() && negated => Filter::Always,
            _ if negated && values.contains(&Value::Null) => Filter::Never,
            [] => Test::range(column, 1, 0, negated),
            [image] => Test::range(column, *image, *image, negated),
            _ => Filter::Leaf(Leaf { column, test: Test::OneOf { images, negated } }),
        })
    }

    fn literal(&self, column: usize, value: &Value) -> WarmError {
        let (column, data_type) = self.table.spec().name_and_type(column);
        Unsupported::Literal { column, data_type, literal: value.to_string() }.into()
    }
}

/// The comparison that is true where this one is false.
const fn opposite(op: Comparison) -> Comparison {
    match op {
        Comparison::Equal => Comparison::NotEqual,
        Comparison::NotEqual => Comparison::Equal,
        Comparison::Less => Comparison::GreaterOrEqual,
        Comparison::LessOrEqual => Comparison::Greater,
        Comparison::Greater => Comparison::LessOrEqual,
        Comparison::GreaterOrEqual => Comparison::Less,
    }
}

/// A comparison as a range of images.
fn in_range(column: usize, op: Comparison, place: Place) -> Filter {
    // The images before the literal, and those up to it; an empty range begins after its end.
    let nothing = (1, 0);
    let (before, up_to) = match place {
        Place::Below => (nothing, nothing),
        Place::Above => ((i64::MIN, i64::MAX), (i64::MIN, i64::MAX)),
        Place::At(image) => {
            (image.checked_sub(1).map_or(nothing, |last| (i64::MIN, last)), (i64::MIN, image))
        }
    };
    let equal = match place {
        Place::At(image) => (image, image),
        _ => nothing,
    };
    let ((low, high), negated) = match op {
        Comparison::Equal => (equal, false),
        Comparison::NotEqual => (equal, true),
        Comparison::Less => (before, false),
        Comparison::LessOrEqual => (up_to, false),
        Comparison::Greater => (after(up_to), false),
        Comparison::GreaterOrEqual => (after(before), false),
    };
    Test::range(column, low, high, negated)
}

/// The images after a range that begins at the least, or is empty.
fn after((low, high): (i64, i64)) -> (i64, i64) {
    match high.checked_add(1) {
        _ if low > high => (i64::MIN, i64::MAX),
        Some(first) => (first, i64::MAX),
        None => (1, 0),
    }
}

/// Both of these; two ranges of one column become one.
fn joined(parts: [Filter; 2]) -> Filter {
    let range = |part: &Filter| match part {
        Filter::Leaf(Leaf { column, test: Test::Range { low, high, negated: false } }) => {
            Some((*column, *low, *high))
        }
        _ => None,
    };
    match (range(&parts[0]), range(&parts[1])) {
        (Some((column, low, _)), Some((_, _, high))) => Test::range(column, low, high, false),
        _ => Filter::all(parts),
    }
}
