//! A live look at the batch: is the embedding collapsing?

/// What a batch of embeddings looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchShape {
    /// Mean cosine of pairs of the same class.
    pub within: f64,
    /// Mean cosine of pairs of different classes.
    pub between: f64,
    /// Participation ratio of the second-moment spectrum, (tr M)² / tr M², as a share of the width it could reach.
    pub spread: f64,
}

/// Measures a batch of unit-norm embeddings `[labels.len(), dim]`.
#[must_use]
pub fn measure(values: &[f32], labels: &[u32]) -> Option<BatchShape> {
    let rows = labels.len();
    if rows < 2 || !values.len().is_multiple_of(rows) {
        return None;
    }
    let dim = values.len() / rows;
    let (mut within, mut between, mut squares) = ((0f64, 0usize), (0f64, 0usize), 0f64);
    for a in 0..rows {
        for b in 0..rows {
            let cosine: f64 = values[a * dim..][..dim]
                .iter()
                .zip(&values[b * dim..][..dim])
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum();
            // tr M² of the moment matrix equals the sum of squared cosines of all pairs.
            squares += cosine * cosine;
            if a < b {
                let sum = if labels[a] == labels[b] {
                    &mut within
                } else {
                    &mut between
                };
                sum.0 += cosine;
                sum.1 += 1;
            }
        }
    }
    let mean = |(sum, count): (f64, usize)| if count == 0 { 0.0 } else { sum / count as f64 };
    let spread = (rows * rows) as f64 / squares.max(1e-12) / dim.min(rows) as f64;
    Some(BatchShape {
        within: mean(within),
        between: mean(between),
        spread,
    })
}

impl BatchShape {
    /// A warning in plain words, if there is reason for one.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if self.between > 0.9 {
            return Some(format!(
                "the embedding is collapsing: images of different classes have a mean cosine of {:.2}, so everything looks \
                 alike; lower optimizer.rate or raise the number of classes per batch",
                self.between
            ));
        }
        if self.spread < 0.02 {
            return Some(format!(
                "the embedding uses few of its dimensions ({:.1} % of what it could): lower optimizer.rate, or choose a smaller \
                 model.width",
                self.spread * 100.0
            ));
        }
        if self.within > 0.995 {
            return Some(format!(
                "classes have collapsed into points (mean cosine inside a class {:.3}): differences between members are lost; \
                 train for fewer epochs, or give the intra-class ranking more weight",
                self.within
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orthonormal_batch_is_fully_spread_and_gives_no_warning() {
        let values: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect();
        let shape = measure(&values, &[0, 0, 1, 1]).unwrap();
        assert!(
            (shape.spread - 1.0).abs() < 1e-9 && shape.between.abs() < 1e-9,
            "{shape:?}"
        );
        assert_eq!(shape.warning(), None);
    }

    #[test]
    fn each_kind_of_collapse_is_named() {
        let one_point = measure(&[1.0, 0.0].repeat(4), &[0, 0, 1, 1]).unwrap();
        assert!(one_point.warning().unwrap().contains("collapsing"));
        let points = measure(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0], &[0, 0, 1, 1]).unwrap();
        assert!(points.warning().unwrap().contains("collapsed into points"));
        let mut line = vec![0f32; 200 * 100];
        for row in 0..200 {
            line[row * 100] = if row % 2 == 0 { 1.0 } else { -1.0 };
        }
        let labels: Vec<u32> = (0..200).collect();
        assert!(
            measure(&line, &labels)
                .unwrap()
                .warning()
                .unwrap()
                .contains("few of its dimensions")
        );
        assert_eq!(measure(&[1.0], &[0]), None);
    }
}
