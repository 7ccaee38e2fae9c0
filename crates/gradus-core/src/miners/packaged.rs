//! Batches whose rows are triplets already.

use serde::{Deserialize, Serialize};

use super::{Mined, Miner, MiningError, MiningInput};

/// Rows are anchor, positive, negative, anchor, positive, negative …, as the sampler `fixed-triplets` deals them; labels are
/// not looked at (pytorch-metric-learning's EmbeddingsAlreadyPackagedAsTriplets). There is no reference set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackagedMiner {}

impl Miner for PackagedMiner {
    const SUMMARY: &'static str = "rows 3i, 3i + 1 and 3i + 2 are anchor, positive and negative";
    const PAPER: &'static str = "Musgrave et al., PyTorch Metric Learning, arXiv";
    const YEAR: u16 = 2020;

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let name = "embeddings-already-packaged-as-triplets";
        if !input.same() {
            return Err(MiningError::Unsupported(format!(
                "the miner {name} takes anchors, positives and negatives from one batch: it cannot have a reference set"
            )));
        }
        let rows = input.queries() as u32;
        if !rows.is_multiple_of(3) {
            return Err(MiningError::Unsupported(format!(
                "the miner {name} needs rows in groups of three (anchor, positive, negative), but there are {rows}: take a \
                 multiple of 3, such as the batches of the sampler fixed-triplets"
            )));
        }
        Ok(Mined::Triplets((0..rows / 3).map(|at| [3 * at, 3 * at + 1, 3 * at + 2]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    #[test]
    fn rows_are_taken_by_threes() {
        let labels = Labels::from(vec![0; 6]);
        let input = MiningInput::batch(vec![0.5; 6], &labels, 1, 0).unwrap();
        let found = PackagedMiner {}.mine(&input).unwrap();
        assert_eq!(found, Mined::Triplets(vec![[0, 1, 2], [3, 4, 5]]));
        let labels = Labels::from(vec![0; 4]);
        let input = MiningInput::batch(vec![0.5; 4], &labels, 1, 0).unwrap();
        let message = PackagedMiner {}.mine(&input).unwrap_err().to_string();
        assert!(message.contains("there are 4"), "{message}");
        let input = MiningInput::between(vec![0.5; 4], &labels, vec![0.5; 4], &labels, 1, 0).unwrap();
        let message = PackagedMiner {}.mine(&input).unwrap_err().to_string();
        assert!(message.contains("reference set"), "{message}");
    }
}
