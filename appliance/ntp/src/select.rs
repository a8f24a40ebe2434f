//! Whom to believe when servers disagree: the largest group whose error intervals overlap (RFC 5905 section 11.2.1).

use crate::source::Best;

/// Gives the places of those in `candidates` that agree, best first; empty when no majority does.
pub(crate) fn select(candidates: &[Best]) -> Vec<usize> {
    let bounds = |best: &Best| {
        let (offset, bound) = (i128::from(best.measured.offset), i128::from(best.bound));
        (offset - bound, offset + bound)
    };
    let edges = candidates.iter().map(|one| bounds(one).0);
    // The point that most intervals cover is the lower edge of one of them.
    let covering = |point: i128| {
        let covers = |one: &&Best| {
            let (low, high) = bounds(one);
            low <= point && point <= high
        };
        candidates.iter().filter(covers).count()
    };
    let Some(point) = edges.max_by_key(|point| covering(*point)) else {
        return Vec::new();
    };
    if covering(point) * 2 <= candidates.len() {
        return Vec::new();
    }
    let mut chosen: Vec<usize> = candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| (bounds(one).0..=bounds(one).1).contains(&point))
        .map(|(n, _)| n)
        .collect();
    chosen.sort_by_key(|n| candidates.get(*n).map(|one| (one.measured.stratum, one.bound)));
    chosen
}

/// The offset of those that agree, each weighed by how near it is to its root.
pub(crate) fn combine(chosen: &[Best]) -> Option<i64> {
    let (mut sum, mut weights) = (0i128, 0i128);
    for one in chosen {
        let weight = 1_000_000_000_000 / i128::from(one.bound.clamp(1000, 10_000_000_000));
        sum += weight * i128::from(one.measured.offset);
        weights += weight;
    }
    sum.checked_div(weights).and_then(|mean| i64::try_from(mean).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Leap, Measured};

    fn best(offset: i64, bound: u64) -> Best {
        Best {
            measured: Measured {
                offset,
                delay: 0,
                synchronised: true,
                leap: Leap::None,
                stratum: 2,
                distance: 0,
                root_delay: 0,
                root_dispersion: 0,
            },
            leap: Leap::None,
            bound,
            jitter: 0,
        }
    }

    #[test]
    fn a_false_clock_is_outvoted_and_two_that_disagree_are_not_believed() {
        let ms = 1_000_000;
        let all = [
            best(10 * ms, 5 * ms as u64),
            best(3_600_000 * ms, 20),
            best(12 * ms, 2 * ms as u64),
        ];
        assert_eq!(select(&all), [2, 0]);
        assert_eq!(select(&all[..2]), [] as [usize; 0]);
        assert_eq!(select(&all[..1]), [0]);
        assert_eq!(select(&[]), [] as [usize; 0]);
        let mean = combine(&[all[0], all[2]]).unwrap();
        assert!((11 * ms..12 * ms).contains(&mean), "{mean}");
    }
}
