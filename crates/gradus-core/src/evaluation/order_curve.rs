//! Order preservation as a curve: mean embedding distance inside classes, by distance in a known factor.

use rayon::prelude::*;

use super::factors::FactorTable;
use super::unit_rows::{UnitRows, distance};

/// Most members of a class whose pairs are looked at, spread evenly over the class.
const MOST_MEMBERS: usize = 300;

/// One stretch of factor distances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderPoint {
    /// Mean factor distance of its pairs, in the unit of the factor.
    pub factor_distance: f64,
    /// Mean embedding distance of its pairs, in units of the mean over all pairs inside classes.
    pub embedding_distance: f64,
    /// Its pairs.
    pub pairs: usize,
}

/// The curve of one factor. Where a space keeps the order, it rises; where classes have collapsed to their labels, it is flat at 1.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderCurve {
    /// Name of the factor.
    pub factor: String,
    /// Stretches with a pair, by rising factor distance.
    pub points: Vec<OrderPoint>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    factor: f64,
    embedding: f64,
    pairs: usize,
}

/// The curve of every factor over `bins` equal stretches of factor distance, from 0 to the greatest one inside a class.
///
/// All pairs inside classes count; of classes with more than 300 members, 300 evenly spread ones. `rows` may be sorted by class;
/// `table` is in the order of the set they were made of.
///
/// # Panics
/// If the table has another number of rows.
#[must_use]
pub fn order_curves(rows: &UnitRows, table: &FactorTable, bins: usize) -> Vec<OrderCurve> {
    let bins = bins.max(1);
    let members: Vec<Vec<usize>> = rows
        .classes()
        .iter()
        .map(|class| {
            let len = class.rows.len();
            let taken = len.min(MOST_MEMBERS);
            (0..taken).map(|at| class.rows.start + at * len / taken).collect()
        })
        .collect();
    let index = |position: usize| rows.order()[position] as usize;
    let pairs_of = |class: &Vec<usize>, visit: &mut dyn FnMut(usize, usize)| {
        for (at, &a) in class.iter().enumerate() {
            for &b in &class[at + 1..] {
                visit(a, b);
            }
        }
    };
    (0..table.factors.len())
        .map(|factor| {
            let known = |a: usize, b: usize| table.distance(factor, index(a), index(b));
            let greatest = members
                .par_iter()
                .map(|class| {
                    let mut greatest = 0.0_f64;
                    pairs_of(class, &mut |a, b| greatest = greatest.max(known(a, b)));
                    greatest
                })
                .reduce(|| 0.0, f64::max);
            // Summed class by class in order: the same on any number of threads.
            let per_class: Vec<Vec<Sums>> = members
                .par_iter()
                .map(|class| {
                    let mut sums = vec![Sums::default(); bins];
                    pairs_of(class, &mut |a, b| {
                        let far = known(a, b);
                        let bin = if greatest > 0.0 {
                            (far / greatest * bins as f64) as usize
                        } else {
                            0
                        };
                        let sum = &mut sums[bin.min(bins - 1)];
                        sum.factor += far;
                        sum.embedding += f64::from(distance(rows.row(a), rows.row(b)));
                        sum.pairs += 1;
                    });
                    sums
                })
                .collect();
            let mut sums = vec![Sums::default(); bins];
            for class in &per_class {
                for (sum, other) in sums.iter_mut().zip(class) {
                    sum.factor += other.factor;
                    sum.embedding += other.embedding;
                    sum.pairs += other.pairs;
                }
            }
            let pairs: usize = sums.iter().map(|sum| sum.pairs).sum();
            let mean = sums.iter().map(|sum| sum.embedding).sum::<f64>() / pairs.max(1) as f64;
            let points = sums
                .iter()
                .filter(|sum| sum.pairs > 0)
                .map(|sum| OrderPoint {
                    factor_distance: sum.factor / sum.pairs as f64,
                    embedding_distance: sum.embedding / sum.pairs as f64 / mean.max(1e-12),
                    pairs: sum.pairs,
                })
                .collect();
            OrderCurve {
                factor: table.factors[factor].name.clone(),
                points,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::data::Factor;

    #[test]
    fn a_space_that_keeps_the_angle_rises_and_one_that_ignores_it_is_flat() {
        // Two classes on arcs: the angle of a row is its factor; a second factor says nothing.
        let mut set = EmbeddingSet {
            dim: 3,
            ..EmbeddingSet::default()
        };
        let mut values = Vec::new();
        for class in 0..2_u32 {
            for step in 0..40_u32 {
                let angle = step as f32 * 0.02;
                set.values.extend([angle.cos(), angle.sin(), class as f32]);
                set.labels.push(class);
                set.ids.push(String::new());
                values.extend([angle, (step * 17 % 40) as f32]);
            }
        }
        let factor = |name: &str| Factor {
            name: name.into(),
            period: None,
        };
        let table = FactorTable {
            factors: vec![factor("angle"), factor("noise")],
            values,
        };
        let curves = order_curves(&UnitRows::new(&set, "query").unwrap(), &table, 8);
        let rises = |curve: &OrderCurve| {
            let pairs = curve.points.windows(2);
            pairs
                .filter(|pair| pair[1].embedding_distance > pair[0].embedding_distance)
                .count()
        };
        assert_eq!((curves[0].points.len(), rises(&curves[0])), (8, 7));
        assert_eq!(
            curves[0].points.iter().map(|point| point.pairs).sum::<usize>(),
            2 * 40 * 39 / 2
        );
        let spread = |curve: &OrderCurve| {
            let all = curve.points.iter().map(|point| point.embedding_distance);
            all.clone().fold(0.0, f64::max) - all.fold(9.0, f64::min)
        };
        assert!(spread(&curves[0]) > 1.5 && spread(&curves[1]) < 0.8, "{curves:?}");
        // A factor that never varies has one stretch, at 0 and 1.
        let still = FactorTable {
            factors: vec![factor("still")],
            values: vec![3.0; 80],
        };
        let curves = order_curves(&UnitRows::new(&set, "query").unwrap(), &still, 8);
        assert_eq!(curves[0].points.len(), 1);
        assert!((curves[0].points[0].embedding_distance - 1.0).abs() < 1e-9);
    }
}
