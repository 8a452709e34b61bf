//! The first rows by some columns: a heap of the best ones found.

use std::collections::BinaryHeap;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::mask::{self, BLOCK_ROWS};
use super::rows::{self, Pick};
use super::scan::{self, Piece};
use super::{HostData, Run};
use crate::bound::Test;
use crate::error::WarmError;
use crate::images::image_at;
use crate::request::SortKey;
use crate::segment::ColumnStats;
use crate::spec::{Form, TableSpec};
use crate::table::KeyDirectory;

/// Where a value stands in an order: less is earlier. Nulls are before or after all values.
type Rank = (u8, i64);

/// The first `k` rows in an order.
pub(super) fn top_k(
    run: &mut Run<'_>,
    order: &[SortKey],
    k: usize,
    columns: &[usize],
) -> Result<Vec<RecordBatch>, WarmError> {
    let ranks = order.iter().map(|key| Ranks::new(run.table.spec(), *key));
    let mut top = Top { ranks: ranks.collect::<Result<_, _>>()?, k, heap: BinaryHeap::new() };
    for number in 0..run.parts.len() {
        run.request.check_cancel()?;
        let part = &run.parts[number];
        if k == 0 || top.is_beaten(part.segment.stats().columns.as_slice()) {
            continue;
        }
        let directory = &run.directory;
        scan::pieces(run.table, directory, part, &mut run.work, |piece| {
            top.add(number, directory, piece);
            Ok(())
        })?;
    }
    let picks: Vec<_> = top.heap.into_sorted_vec().into_iter().map(|(_, pick)| pick).collect();
    rows::picked(run, columns, &picks)
}

/// The best rows found, the worst of them at the top of the heap.
struct Top {
    ranks: Vec<Ranks>,
    k: usize,
    heap: BinaryHeap<(Vec<Rank>, Pick)>,
}

impl Top {
    fn add(&mut self, part: usize, directory: &KeyDirectory, piece: &Piece<'_>) {
        let mut scratch = [1; BLOCK_ROWS];
        let candidates = &mut scratch[..piece.rows.len()];
        if let (Some(ranks), Some((worst, _)), true) =
            (self.ranks.first(), self.heap.peek(), self.heap.len() == self.k)
        {
            ranks.not_after(worst[0], piece, candidates);
        }
        for row in piece.matching().filter(|row| candidates[row - piece.rows.start] == 1) {
            let pick = Pick::new(part, row, piece.key);
            let rank = |ranks: &Ranks| ranks.of_row(directory, piece.data, pick);
            if self.heap.len() < self.k {
                self.heap.push((self.ranks.iter().map(rank).collect(), pick));
                continue;
            }
            let Some(mut worst) = self.heap.peek_mut() else { return };
            // Rows come in the order that decides among equals, so an equal one is too late.
            if self.ranks.iter().map(rank).lt(worst.0.iter().copied()) {
                *worst = (self.ranks.iter().map(rank).collect(), pick);
            }
        }
    }

    /// Whether no row of a segment can be better than those found, by its first column.
    fn is_beaten(&self, columns: &[Option<ColumnStats>]) -> bool {
        let (Some(ranks), Some((worst, _))) = (self.ranks.first(), self.heap.peek()) else {
            return false;
        };
        let best = columns[ranks.key.column].as_ref().and_then(|column| ranks.best(column));
        self.heap.len() == self.k && best.is_some_and(|best| best > worst[0])
    }
}

/// How the values of a column are ranked.
struct Ranks {
    key: SortKey,
    form: Form,
    /// The place among the key columns, if the column is one.
    position: Option<usize>,
}

impl Ranks {
    fn new(spec: &TableSpec, key: SortKey) -> Result<Self, WarmError> {
        let form = spec.form(key.column)?;
        Ok(Self { key, form, position: spec.key_position(key.column) })
    }

    fn of_row(&self, directory: &KeyDirectory, data: &HostData, pick: Pick) -> Rank {
        let of_array = |array: &ArrayRef| image_at(self.form, array, pick.row as usize);
        self.rank(match self.position {
            Some(position) => directory.image(pick.key, position),
            None => data.columns[self.key.column].as_ref().and_then(of_array),
        })
    }

    fn rank(&self, image: Option<i64>) -> Rank {
        match image {
            Some(image) if self.key.descending => (1, !image),
            Some(image) => (1, image),
            None if self.key.nulls_first => (0, 0),
            None => (2, 0),
        }
    }

    /// Marks the rows of a piece whose rank is this one or an earlier one.
    fn not_after(&self, (class, image): Rank, piece: &Piece<'_>, mask: &mut [u8]) {
        let Some(array) = piece.data.columns[self.key.column].as_ref() else { return };
        let (low, high) = match (class, self.key.descending) {
            (1, true) => (!image, i64::MAX),
            (1, false) => (i64::MIN, image),
            // Only nulls are this early, or all values are.
            _ => return,
        };
        mask::test_array(mask, &Test::Range { low, high, negated: false }, array, piece.rows.start);
        if self.key.nulls_first && array.null_count() > 0 {
            let valid = array.nulls().map(|nulls| nulls.slice(piece.rows.start, mask.len()));
            for (byte, valid) in mask.iter_mut().zip(valid.iter().flat_map(|nulls| nulls.iter())) {
                *byte |= u8::from(!valid);
            }
        }
    }

    /// The earliest rank of the rows of a segment.
    fn best(&self, stats: &ColumnStats) -> Option<Rank> {
        if stats.null_count > 0 && self.key.nulls_first {
            return Some(self.rank(None));
        }
        match stats.images {
            Some((_, greatest)) if self.key.descending => Some(self.rank(Some(greatest))),
            Some((least, _)) => Some(self.rank(Some(least))),
            None => Some(self.rank(None)),
        }
    }
}
