//! Order self-consistency: do generated levels lie farther away the stronger they are?

use super::measure::Measure;

/// Name and origin of the share of pairs out of order.
pub(super) const MISORDERED: Measure = Measure {
    name: "misordered",
    summary: "share of pairs of levels whose stronger one lies nearer (ties half); 0.5 is chance",
    source: "gradus, after Fu et al., Deep Metric Learning with Self-Supervised Ranking, AAAI 2021",
};

/// Name and origin of the share of pairs with the margin.
pub(super) const MEETING_MARGIN: Measure = Measure {
    name: "meeting_margin",
    summary: "share of pairs of levels whose stronger one lies farther by at least the margin",
    source: "gradus, after the ranking loss of Liu et al., arXiv 2304.10941, 2023",
};

/// How the distances of graded levels are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelOrder {
    /// Share of pairs whose stronger level lies nearer; a tie counts one half, so a collapsed item stands at chance.
    pub misordered: f64,
    /// Share of pairs whose stronger level lies farther by at least the margin.
    pub meeting_margin: f64,
    /// Pairs looked at.
    pub pairs: usize,
}

/// Order of the levels of every item; `margin(weaker, stronger)` is the gap asked of a pair of level numbers (from 0).
///
/// Any quantity that rises with the change will do as distance, the negative cosine of the ranking loss included. `None`
/// if there is no pair or a distance is NaN.
///
/// # Shapes
/// `distances` is row-major `[items, levels]`, weakest level first.
///
/// # Panics
/// If `distances` is not a whole number of rows.
///
/// ```
/// use gradus_core::evaluation::level_order;
/// let order = level_order(&[0.1, 0.2, 0.15], 3, |_, _| 0.04).unwrap();
/// assert_eq!((order.pairs, order.misordered), (3, 1.0 / 3.0));
/// ```
#[must_use]
pub fn level_order(distances: &[f32], levels: usize, margin: impl Fn(usize, usize) -> f32) -> Option<LevelOrder> {
    if levels < 2 || distances.is_empty() || distances.iter().any(|distance| distance.is_nan()) {
        return None;
    }
    assert_eq!(
        distances.len() % levels,
        0,
        "distances must be whole rows of {levels} levels"
    );
    let (mut misordered, mut meeting, mut pairs) = (0.0, 0_usize, 0_usize);
    for item in distances.chunks_exact(levels) {
        for stronger in 1..levels {
            for weaker in 0..stronger {
                pairs += 1;
                if item[stronger] < item[weaker] {
                    misordered += 1.0;
                } else if item[stronger] == item[weaker] {
                    misordered += 0.5;
                }
                meeting += usize::from(item[stronger] - item[weaker] >= margin(weaker, stronger));
            }
        }
    }
    Some(LevelOrder {
        misordered: misordered / pairs as f64,
        meeting_margin: meeting as f64 / pairs as f64,
        pairs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_chance_and_reverse() {
        let linear = |weaker: usize, stronger: usize| 0.25 * (stronger - weaker) as f32;
        let order = level_order(&[0.0, 0.25, 0.5, 0.75], 4, linear).unwrap();
        assert_eq!((order.misordered, order.meeting_margin, order.pairs), (0.0, 1.0, 6));
        let order = level_order(&[0.75, 0.5, 0.25, 0.0], 4, linear).unwrap();
        assert_eq!((order.misordered, order.meeting_margin), (1.0, 0.0));
        let order = level_order(&[0.3; 8], 4, linear).unwrap();
        assert_eq!((order.misordered, order.meeting_margin, order.pairs), (0.5, 0.0, 12));
        let order = level_order(&[0.0, 0.5, 0.25, 0.5], 2, |_, _| 0.3).unwrap();
        assert_eq!((order.misordered, order.meeting_margin), (0.0, 0.5));
        assert_eq!(level_order(&[], 4, linear), None);
        assert_eq!(level_order(&[1.0, 2.0], 1, linear), None);
        assert_eq!(level_order(&[1.0, f32::NAN], 2, linear), None);
    }
}
