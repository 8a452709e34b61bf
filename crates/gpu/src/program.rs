//! Filters become programs of a small stack machine, which kernels run for each row.

use tidelog_warm::{Filter, Leaf, Test, WarmError};

use crate::abi::{Step, StepOp};
use crate::lane::Lane;

/// Entries that the machine's stack has.
const STACK: usize = 16;

/// What a program needs to know of the rows: where columns are, and what is known of the keys of pieces.
pub(crate) trait Place {
    /// The number of a column in the table of columns of the kernel; none of a key column.
    fn column(&mut self, column: usize) -> Option<u32>;

    /// A bit for each piece, whether the images of its key's column meet a test.
    fn pieces(&self, column: usize, test: &Test) -> Vec<u32>;
}

/// The program of a filter; without steps, every row is kept.
///
/// What it refers to is put into the lane's scratch.
///
/// # Errors
///
/// [`WarmError::OutOfMemory`] if it does not fit, or needs a deeper stack than there is: some ten
/// thousands of conditions do.
pub(crate) fn compile(
    filter: &Filter,
    place: &mut impl Place,
    lane: &mut Lane,
) -> Result<Vec<Step>, WarmError> {
    let mut steps = Vec::new();
    if *filter != Filter::Always {
        let needed = needs(filter);
        if needed > STACK {
            return Err(WarmError::OutOfMemory { wanted: needed as u64, free: STACK as u64 });
        }
        push(filter, place, lane, &mut steps)?;
    }
    Ok(steps)
}

/// Entries of the stack that a filter needs: those of its hardest part, then one more for each other.
fn needs(filter: &Filter) -> usize {
    match filter {
        Filter::All(parts) | Filter::Any(parts) => {
            let mut needs: Vec<_> = parts.iter().map(needs).collect();
            needs.sort_unstable_by(|a, b| b.cmp(a));
            let rest = needs.get(1).map_or(0, |second| second + 1);
            needs.first().copied().unwrap_or(1).max(rest)
        }
        _ => 1,
    }
}

fn push(
    filter: &Filter,
    place: &mut impl Place,
    lane: &mut Lane,
    steps: &mut Vec<Step>,
) -> Result<(), WarmError> {
    match filter {
        // An empty range of rows that have a value, or all others.
        Filter::Always | Filter::Never => {
            let bits = if *filter == Filter::Always { u32::MAX } else { 0 };
            let low = lane.put(&vec![bits; place.pieces(usize::MAX, &Test::IsNull).len()])?;
            steps.push(Step { op: StepOp::Pieces as u32, low, ..Step::default() });
        }
        Filter::All(parts) => push_parts(parts, StepOp::And, place, lane, steps)?,
        Filter::Any(parts) => push_parts(parts, StepOp::Or, place, lane, steps)?,
        Filter::Leaf(leaf) => steps.push(step(leaf, place, lane)?),
    }
    Ok(())
}

fn push_parts(
    parts: &[Filter],
    op: StepOp,
    place: &mut impl Place,
    lane: &mut Lane,
    steps: &mut Vec<Step>,
) -> Result<(), WarmError> {
    // The hardest first: it finds the stack empty.
    let mut order: Vec<_> = parts.iter().map(|part| (needs(part), part)).collect();
    order.sort_by_key(|(needs, _)| std::cmp::Reverse(*needs));
    for (number, (_, part)) in order.into_iter().enumerate() {
        push(part, place, lane, steps)?;
        if number > 0 {
            steps.push(Step { op: op as u32, ..Step::default() });
        }
    }
    Ok(())
}

fn step(leaf: &Leaf, place: &mut impl Place, lane: &mut Lane) -> Result<Step, WarmError> {
    let Some(column) = place.column(leaf.column) else {
        let low = lane.put(&place.pieces(leaf.column, &leaf.test))?;
        return Ok(Step { op: StepOp::Pieces as u32, low, ..Step::default() });
    };
    let step = |op: StepOp, negated: bool, low: u64, high: u64| Step {
        op: op as u32,
        column,
        negated: u32::from(negated),
        unused: 0,
        low,
        high,
    };
    Ok(match &leaf.test {
        Test::IsNull => step(StepOp::Null, false, 0, 0),
        Test::IsNotNull => step(StepOp::Null, true, 0, 0),
        Test::Range { low, high, negated } => {
            step(StepOp::Range, *negated, low.cast_unsigned(), high.cast_unsigned())
        }
        Test::OneOf { images, negated } => {
            step(StepOp::Images, *negated, lane.put(images)?, images.len() as u64)
        }
        Test::Codes(bits) => {
            let words = words_of(bits.iter());
            step(StepOp::Codes, false, lane.put(&words)?, bits.len() as u64)
        }
    })
}

/// Bits, 32 to a word, the first one lowest.
pub(crate) fn words_of(bits: impl ExactSizeIterator<Item = bool>) -> Vec<u32> {
    let mut words = vec![0; bits.len().div_ceil(32)];
    for (number, bit) in bits.enumerate() {
        words[number / 32] |= u32::from(bit) << (number % 32);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Filter {
        Filter::Leaf(Leaf { column: 0, test: Test::IsNull })
    }

    #[test]
    fn the_stack_that_is_needed_grows_with_the_width_of_a_balanced_tree_only() {
        assert_eq!(needs(&leaf()), 1);
        assert_eq!(needs(&Filter::All(vec![leaf(); 100])), 2);
        let mut deep = leaf();
        for level in 0..60 {
            deep = match level % 2 {
                0 => Filter::All(vec![leaf(), deep]),
                _ => Filter::Any(vec![leaf(), deep]),
            };
        }
        assert_eq!(needs(&deep), 2);
        let mut balanced = leaf();
        for level in 0..6 {
            balanced = match level % 2 {
                0 => Filter::All(vec![balanced.clone(), balanced]),
                _ => Filter::Any(vec![balanced.clone(), balanced]),
            };
        }
        assert_eq!(needs(&balanced), 7);
    }

    #[test]
    fn bits_become_words_from_the_lowest_bit_on() {
        let bits: Vec<bool> = (0..40).map(|bit| bit == 0 || bit == 33).collect();
        assert_eq!(words_of(bits.into_iter()), [1, 2]);
    }
}
