//! Cross-batch memory: embeddings of the last batches, to compare the present one with.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::ItemSet;
use crate::state::NamedArray;
use crate::tensor::{Device, Tensor, TensorData};

/// Section `[memory]`: cross-batch memory (Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020).
///
/// A batch is put into the memory (outside autodiff), then compared with all that lies there, itself included; two views
/// of one item make no pair, whenever they were stored. The defaults are those of pytorch-metric-learning's
/// `CrossBatchMemory`; the paper's are a far larger `size`, `start-step = 1000` and `batch-weight = 1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryConfig {
    /// Embeddings kept; the oldest go first (default 1024). At least a batch.
    pub size: usize,
    /// Steps at the start in which a batch is compared with itself only, while embeddings still move fast (default 0).
    pub start_step: usize,
    /// Weight of the loss of the batch compared with itself, beside that of the batch compared with the memory (default 0).
    pub batch_weight: f64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            size: 1024,
            start_step: 0,
            batch_weight: 0.0,
        }
    }
}

impl MemoryConfig {
    /// Checks the settings against the size of a batch.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    pub fn validate(&self, batch_size: usize) -> Result<(), String> {
        if self.size < batch_size {
            return Err(format!(
                "memory.size = {}: expected at least a batch, {batch_size}",
                self.size
            ));
        }
        if self.batch_weight.is_finite() && self.batch_weight >= 0.0 {
            return Ok(());
        }
        Err(format!(
            "memory.batch-weight = {}: expected a number of at least 0",
            self.batch_weight
        ))
    }
}

/// The numbers of items a memory can keep in a file of single-precision numbers.
pub(super) const MOST_ITEMS: usize = 1 << 24;

/// A ring of the newest embeddings with the class and the item of each.
#[derive(Debug, Clone)]
pub struct Memory {
    config: MemoryConfig,
    steps: usize,
    rows: VecDeque<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    values: Vec<f32>,
    label: u32,
    item: u64,
}

impl Memory {
    /// An empty memory.
    #[must_use]
    pub fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            steps: 0,
            rows: VecDeque::new(),
        }
    }

    /// Stores a batch; the oldest rows make room.
    ///
    /// # Shapes
    /// `values` is row-major `[labels.len(), dim]`; `items` says which item each row shows.
    pub fn store(&mut self, values: &[f32], labels: &[u32], items: &[u64]) {
        let dim = values.len().checked_div(labels.len()).unwrap_or(0).max(1);
        for ((values, &label), &item) in values.chunks(dim).zip(labels).zip(items) {
            self.rows.push_back(Row {
                values: values.to_vec(),
                label,
                item,
            });
        }
        let over = self.rows.len().saturating_sub(self.config.size);
        self.rows.drain(..over);
        self.steps += 1;
    }

    /// What a batch is compared with once it is stored; `None` while the memory only fills up.
    #[must_use]
    pub fn references(&self, device: &Device) -> Option<ItemSet> {
        let first = self.rows.front()?;
        if self.steps <= self.config.start_step {
            return None;
        }
        let values: Vec<f32> = self.rows.iter().flat_map(|row| row.values.iter().copied()).collect();
        let data = TensorData::new(values, [self.rows.len(), first.values.len()]);
        let labels: Vec<u32> = self.rows.iter().map(|row| row.label).collect();
        let items: Arc<[u64]> = self.rows.iter().map(|row| row.item).collect();
        Some(ItemSet::new(Tensor::from_data(data, device), labels).with_ids(items))
    }

    /// Weight of the loss of a batch compared with itself, beside that of the memory.
    #[must_use]
    pub fn batch_weight(&self) -> f64 {
        self.config.batch_weight
    }

    /// All there is to save.
    #[must_use]
    pub fn to_arrays(&self) -> Vec<NamedArray> {
        let array = |name: &str, values: Vec<f32>| NamedArray {
            name: name.to_owned(),
            shape: vec![values.len()],
            values,
        };
        // Whole numbers below 2^24 are exact; the trainer refuses more items than that.
        vec![
            array("steps", vec![self.steps.min(MOST_ITEMS) as f32]),
            array("labels", self.rows.iter().map(|row| row.label as f32).collect()),
            array("items", self.rows.iter().map(|row| row.item as f32).collect()),
            array(
                "embeddings",
                self.rows.iter().flat_map(|row| row.values.iter().copied()).collect(),
            ),
        ]
    }

    /// Restores what [`to_arrays`](Self::to_arrays) gave.
    ///
    /// # Errors
    /// If an array is missing or their lengths do not belong together.
    pub fn load_arrays(&mut self, arrays: &[NamedArray]) -> Result<(), String> {
        let values = |name: &str| {
            let found = arrays.iter().find(|array| array.name == name);
            found
                .map(|array| &array.values)
                .ok_or_else(|| format!("the memory has no `{name}`"))
        };
        let (steps, labels, items, embeddings) = (
            values("steps")?,
            values("labels")?,
            values("items")?,
            values("embeddings")?,
        );
        let dim = embeddings.len().checked_div(labels.len()).unwrap_or(0);
        if labels.len() != items.len() || dim * labels.len() != embeddings.len() {
            return Err(format!(
                "the memory holds {} labels, {} items and {} numbers, which do not belong together",
                labels.len(),
                items.len(),
                embeddings.len()
            ));
        }
        self.steps = steps.first().copied().unwrap_or_default() as usize;
        self.rows = (0..labels.len())
            .map(|row| Row {
                values: embeddings[row * dim..][..dim].to_vec(),
                label: labels[row] as u32,
                item: items[row] as u64,
            })
            .collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_core::relations::Relation;

    fn memory(size: usize, start_step: usize) -> Memory {
        Memory::new(MemoryConfig {
            size,
            start_step,
            batch_weight: 0.0,
        })
    }

    #[test]
    fn the_oldest_rows_make_room() {
        let mut memory = memory(3, 0);
        memory.store(&[0.0, 0.5, 1.0, 1.5], &[7, 8], &[10, 11]);
        memory.store(&[2.0, 2.5, 3.0, 3.5], &[9, 7], &[12, 10]);
        let set = memory.references(&Device::flex()).unwrap();
        assert_eq!(
            set.embeddings.try_into_vec_as::<f32>().unwrap(),
            [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
        );
        assert_eq!(&**set.labels.classes().unwrap(), [8, 9, 7]);
        assert_eq!(&*set.ids.unwrap(), [11, 12, 10]);
    }

    #[test]
    fn views_of_one_item_make_no_pair_whenever_they_were_stored() {
        let device = Device::flex();
        let mut memory = memory(8, 0);
        memory.store(&[1.0, 2.0], &[0, 0], &[5, 6]);
        memory.store(&[3.0, 4.0], &[0, 1], &[5, 7]);
        let batch = ItemSet::new(Tensor::from_data([[3.0], [4.0]], &device), vec![0, 1]).with_ids(vec![5, 7]);
        let comparison = crate::batch::Comparison::with_references(batch, memory.references(&device).unwrap());
        let relations: Vec<Relation> = (0..4).map(|reference| comparison.relation(0, reference)).collect();
        assert_eq!(
            relations,
            [Relation::Ignore, Relation::Same, Relation::Ignore, Relation::Different]
        );
    }

    #[test]
    fn fills_up_first_and_comes_back_from_a_file() {
        let mut memory = memory(4, 1);
        memory.store(&[1.0, 2.0], &[3, 4], &[5, 6]);
        assert!(memory.references(&Device::flex()).is_none());
        let mut restored = Memory::new(memory.config.clone());
        restored.load_arrays(&memory.to_arrays()).unwrap();
        for memory in [&mut memory, &mut restored] {
            memory.store(&[3.0], &[4], &[6]);
            let set = memory.references(&Device::flex()).unwrap();
            assert_eq!(set.embeddings.try_into_vec_as::<f32>().unwrap(), [1.0, 2.0, 3.0]);
            assert_eq!(&*set.ids.unwrap(), [5, 6, 6]);
        }
        let mut arrays = memory.to_arrays();
        arrays[1].values.pop();
        assert!(restored.load_arrays(&arrays).unwrap_err().contains("2 labels, 3 items"));
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        let small = MemoryConfig {
            size: 63,
            ..MemoryConfig::default()
        };
        assert!(small.validate(64).unwrap_err().contains("memory.size = 63"));
        assert!(small.validate(63).is_ok());
        let negative = MemoryConfig {
            batch_weight: -1.0,
            ..MemoryConfig::default()
        };
        assert!(negative.validate(8).unwrap_err().contains("memory.batch-weight"));
    }
}
