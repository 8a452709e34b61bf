//! How far a run goes: exponential, then binary search.

/// The first place in `from + 1..len` where `holds` fails, or `len` if it fails nowhere.
///
/// `holds` must be true at `from` (it is not asked there), and once false stay false. Costs about
/// two comparisons per doubling of the distance, so that a run of one row costs one.
pub(crate) fn gallop<E>(
    from: usize,
    len: usize,
    mut holds: impl FnMut(usize) -> Result<bool, E>,
) -> Result<usize, E> {
    // `holds` is true at `inside`, and false at `outside` or `outside` is `len`.
    let (mut inside, mut outside, mut stride) = (from, len, 1);
    while stride < outside - inside {
        if !holds(inside + stride)? {
            outside = inside + stride;
            break;
        }
        inside += stride;
        stride *= 2;
    }
    while inside + 1 < outside {
        let middle = inside + (outside - inside) / 2;
        match holds(middle)? {
            true => inside = middle,
            false => outside = middle,
        }
    }
    Ok(outside)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn gallop_finds_every_end_from_every_start() -> Result<(), Infallible> {
        for len in 1..70 {
            for from in 0..len {
                for end in from + 1..=len {
                    assert_eq!(
                        gallop(from, len, |i| Ok::<_, Infallible>(i < end))?,
                        end,
                        "{from} {end} {len}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn gallop_asks_once_for_a_run_of_one_row() -> Result<(), Infallible> {
        let mut asked = 0;
        let end = gallop(10, 1_000_000, |_| {
            asked += 1;
            Ok::<_, Infallible>(false)
        })?;
        assert_eq!((end, asked), (11, 1));
        Ok(())
    }

    #[test]
    fn gallop_asks_logarithmically_often() -> Result<(), Infallible> {
        let mut asked = 0;
        let end = gallop(0, 1_000_000, |i| {
            asked += 1;
            Ok::<_, Infallible>(i < 700_000)
        })?;
        assert_eq!(end, 700_000);
        assert!(asked <= 40, "{asked} comparisons");
        Ok(())
    }
}
