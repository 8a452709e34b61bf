//! The tournament between the heads of the inputs, as a tree of losers.
//!
//! ```text
//!              [0] winner
//!               │
//!              [1] loser of the final
//!            ┌──┴──┐
//!           [2]   [3]
//!          ┌─┴─┐ ┌─┴─┐
//!          0   1 2   3      leaf of input i = node k + i, parent = node / 2
//! ```
//!
//! 1. A node holds the loser of the match between the winners of its two subtrees.
//! 2. So when only the winner's head changes, the matches on its path to the root decide anew:
//!    one comparison per level.
//! 3. The runner-up is one of the losers on the winner's path, since only the winner has beaten it.
//!
//! Not here: what a head is, and how two are compared.

use std::iter::successors;

/// A tree of losers over inputs `0..k`, for any `k`.
pub(crate) struct LoserTree {
    /// At 0 the winner of all, at 1..k the loser of each match.
    nodes: Vec<usize>,
}

impl LoserTree {
    /// A tree without results: call [`build`](Self::build) first.
    pub(crate) fn new(inputs: usize) -> Self {
        Self { nodes: (0..inputs).collect() }
    }

    /// Plays all matches. `less` is a strict total order.
    pub(crate) fn build<E>(
        &mut self,
        mut less: impl FnMut(usize, usize) -> Result<bool, E>,
    ) -> Result<(), E> {
        let inputs = self.nodes.len();
        // Winners of the subtrees: leaves in the upper half.
        let mut winners: Vec<usize> = (0..inputs).chain(0..inputs).collect();
        for node in (1..inputs).rev() {
            let (left, right) = (winners[2 * node], winners[2 * node + 1]);
            let (winner, loser) = if less(left, right)? { (left, right) } else { (right, left) };
            winners[node] = winner;
            self.nodes[node] = loser;
        }
        if let (Some(root), Some(&winner)) = (self.nodes.first_mut(), winners.get(1)) {
            *root = winner;
        }
        Ok(())
    }

    /// Plays the matches of the last winner again, after its head has changed.
    pub(crate) fn replay<E>(
        &mut self,
        mut less: impl FnMut(usize, usize) -> Result<bool, E>,
    ) -> Result<(), E> {
        let Some(mut winner) = self.winner() else { return Ok(()) };
        let mut node = self.parent_of_leaf(winner);
        while node > 0 {
            if less(self.nodes[node], winner)? {
                std::mem::swap(&mut self.nodes[node], &mut winner);
            }
            node /= 2;
        }
        self.nodes[0] = winner;
        Ok(())
    }

    /// The input whose head is first, or none without inputs.
    pub(crate) fn winner(&self) -> Option<usize> {
        self.nodes.first().copied()
    }

    /// The inputs that lost against the winner directly; the runner-up is one of them.
    pub(crate) fn challengers(&self) -> impl Iterator<Item = usize> {
        let first = self.winner().map_or(0, |winner| self.parent_of_leaf(winner));
        successors(Some(first), |node| Some(node / 2))
            .take_while(|&node| node > 0)
            .map(|node| self.nodes[node])
    }

    fn parent_of_leaf(&self, input: usize) -> usize {
        (self.nodes.len() + input) / 2
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Drains queues of numbers through the tree; `u32::MAX` stands for an empty queue.
    fn drain(mut queues: Vec<Vec<u32>>) -> Result<Vec<u32>, Infallible> {
        for queue in &mut queues {
            queue.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut tree = LoserTree::new(queues.len());
        let mut drained = Vec::new();
        let mut built = false;
        loop {
            let heads: Vec<(u32, usize)> = queues
                .iter()
                .enumerate()
                .map(|(input, queue)| (queue.last().copied().unwrap_or(u32::MAX), input))
                .collect();
            let less = |a: usize, b: usize| Ok::<_, Infallible>(heads[a] < heads[b]);
            if built {
                tree.replay(less)?
            } else {
                tree.build(less)?
            }
            built = true;
            let Some(winner) = tree.winner() else { return Ok(drained) };
            assert_eq!(heads.iter().min(), Some(&heads[winner]));
            let runner_up = tree.challengers().map(|input| heads[input]).min();
            let second = heads.iter().filter(|head| head.1 != winner).min().copied();
            assert_eq!(runner_up, second);
            match queues[winner].pop() {
                Some(value) => drained.push(value),
                None => return Ok(drained),
            }
        }
    }

    #[test]
    fn a_tree_of_no_inputs_has_no_winner() -> Result<(), Infallible> {
        assert_eq!(drain(Vec::new())?, Vec::<u32>::new());
        assert_eq!(LoserTree::new(0).challengers().count(), 0);
        Ok(())
    }

    proptest! {
        #[test]
        fn the_tree_sorts_and_knows_the_runner_up(
            queues in prop::collection::vec(prop::collection::vec(0u32..20, 0..12), 0..14)
        ) {
            let mut expected: Vec<u32> = queues.iter().flatten().copied().collect();
            expected.sort_unstable();
            let Ok(drained) = drain(queues);
            prop_assert_eq!(drained, expected);
        }
    }
}
