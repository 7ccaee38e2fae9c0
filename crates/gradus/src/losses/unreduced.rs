//! The values of a loss before anything is reduced, read back to the host: what the reducer `do-nothing` leaves.

use super::terms::{Unit, Values};
use super::view::View;
use super::{Loss, MetricLoss};
use crate::batch::Comparison;
use crate::tensor::Tensor;

/// The values of one term.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreduced {
    /// Name of the term.
    pub name: &'static str,
    /// What one value belongs to.
    pub unit: Unit,
    /// What each value belongs to: `[row]`, `[anchor, reference]` or `[anchor, positive, negative]`; empty for a term that the
    /// loss reduces itself.
    pub positions: Vec<Vec<u32>>,
    /// The values.
    pub values: Vec<f64>,
    /// How much each counts: 2 for a pair that was mined twice, a share for labels in common.
    pub weights: Vec<f64>,
}

impl Unreduced {
    fn new(name: &'static str, unit: Unit) -> Self {
        Self {
            name,
            unit,
            positions: vec![],
            values: vec![],
            weights: vec![],
        }
    }

    fn push(&mut self, position: Vec<u32>, value: f64, weight: f64) {
        self.positions.push(position);
        self.values.push(value);
        self.weights.push(weight);
    }

    fn reduced(name: &'static str, value: &Tensor<1>) -> Result<Self, String> {
        let mut whole = Self::new(name, Unit::Reduced);
        whole.push(vec![], value.clone().try_into_scalar().map_err(unreadable)?, 1.0);
        Ok(whole)
    }
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("the values cannot be read from the device: {error}")
}

impl Loss {
    /// The values of every term that count, with what they belong to, whatever the reducer; regularisers are reduced.
    /// Triplets are listed one by one, so memory is that of all of them.
    ///
    /// # Errors
    /// If the device cannot be read.
    ///
    /// # Panics
    /// If [`check`](Self::check) refuses the comparison.
    pub fn unreduced(&self, comparison: &Comparison) -> Result<Vec<Unreduced>, String> {
        if comparison.is_empty() {
            return Ok(vec![]);
        }
        let view = View {
            comparison,
            distance: &self.composition.distance,
        };
        let mut terms = Vec::new();
        for term in self.base.terms(&view) {
            let mut found = Unreduced::new(term.name, term.unit());
            match term.values {
                Values::Reduced(value) => found = Unreduced::reduced(term.name, &value)?,
                Values::Dense {
                    values, weights, unit, ..
                } => {
                    let [_, columns] = values.dims();
                    let values = values.try_to_vec_as::<f64>().map_err(unreadable)?;
                    let weights = weights.try_to_vec_as::<f64>().map_err(unreadable)?;
                    let cells = values.into_iter().zip(weights).enumerate();
                    for (cell, (value, weight)) in cells.filter(|(_, (_, weight))| *weight > 0.0) {
                        let mut position = vec![(cell / columns) as u32];
                        if unit == Unit::Pair {
                            position.push((cell % columns) as u32);
                        }
                        found.push(position, value, weight);
                    }
                }
                Values::Triplets(triplets) => {
                    let (listed, weights): (Vec<_>, Vec<_>) =
                        triplets.choice.list().map_err(unreadable)?.into_iter().unzip();
                    if !listed.is_empty() {
                        let values = triplets.listed_values(&listed);
                        let values = values.try_to_vec_as::<f64>().map_err(unreadable)?;
                        for ((triplet, value), weight) in listed.iter().zip(values).zip(weights) {
                            found.push(triplet.to_vec(), value, weight);
                        }
                    }
                }
            }
            terms.push(found);
        }
        for (name, cost) in self.regularization(&view) {
            terms.push(Unreduced::reduced(name, &cost)?);
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use crate::batch::{Comparison, Mined, MinedPairs};
    use crate::losses::testing::{circle, near, scalar};
    use crate::losses::{LossConfig, ReducerConfig, RegularizerConfig, Unit};
    use crate::tensor::Device;

    const ANGLES: [f64; 7] = [0.0, 0.5, 0.6, 2.0, 2.1, 0.9, 5.0];
    const LABELS: [u32; 7] = [0, 0, 1, 1, 2, 0, 2];

    #[test]
    fn sums_of_the_values_are_what_the_reducer_sum_gives() {
        let pairs = MinedPairs {
            positive: vec![[0, 1], [0, 1], [2, 3]],
            negative: vec![[0, 2], [4, 5]],
        };
        let batch = Comparison::within(&circle(&ANGLES, &LABELS));
        for comparison in [batch.clone(), batch.with_mined(Mined::Pairs(pairs))] {
            for mut config in LossConfig::examples() {
                config.options_mut().reducer = Some(ReducerConfig::Sum {});
                config.options_mut().embedding_regularizer = Some(RegularizerConfig::ZeroMean {});
                let loss = config.init(2, 3, 0, &Device::flex());
                if loss.check(&comparison).is_err() {
                    continue;
                }
                let expected = loss.evaluate(&comparison).terms;
                let found = loss.unreduced(&comparison).expect("reads");
                assert_eq!(found.len(), expected.len());
                for (found, (name, expected)) in found.iter().zip(expected) {
                    assert_eq!(found.name, name);
                    let weighted = found
                        .values
                        .iter()
                        .zip(&found.weights)
                        .map(|(value, weight)| value * weight);
                    near(weighted.sum(), scalar(&expected));
                    let length = match found.unit {
                        Unit::Reduced => 0,
                        Unit::Element => 1,
                        Unit::Pair => 2,
                        Unit::Triplet => 3,
                    };
                    assert!(found.positions.iter().all(|position| position.len() == length));
                }
            }
        }
    }

    #[test]
    fn what_needs_one_number_refuses_it_by_name() {
        let mut config = LossConfig::by_name("contrastive").expect("known");
        config.options_mut().reducer = Some(ReducerConfig::DoNothing {});
        config.validate().expect("a look at the values is fine");
        assert!(!config.init(2, 2, 0, &Device::flex()).reduces());
        let message = config.validate_reduces().expect_err("no number");
        assert!(message.contains("loss.contrastive.reducer"), "{message}");
        let outer = crate::losses::MatryoshkaConfig {
            loss: Box::new(config.clone()),
            ..Default::default()
        };
        let message = LossConfig::from(outer).validate().expect_err("no number inside");
        assert!(message.contains("do-nothing"), "{message}");
        let outer = crate::losses::MultipleLossesConfig {
            losses: vec![config],
            weights: vec![],
        };
        assert!(LossConfig::from(outer).validate().is_err());
    }
}
