//! Known factors of variation of evaluated items, and how far apart two items are in them.

use super::EvaluationError;
use crate::data::{Dataset, Factor};

/// Values of known continuous factors (pose angle, light, augmentation strength, level) for every row of an embedding set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FactorTable {
    /// The factors; a period makes one circular.
    pub factors: Vec<Factor>,
    /// Row-major `[rows, factors]`.
    pub values: Vec<f32>,
}

impl FactorTable {
    /// The factors of the items at `indices` of a data set; `None` if it knows no factor.
    ///
    /// # Panics
    /// If an index is not one of the data set's items.
    #[must_use]
    pub fn from_dataset(dataset: &Dataset, indices: &[usize]) -> Option<Self> {
        if dataset.factors.is_empty() {
            return None;
        }
        let values = indices
            .iter()
            .flat_map(|&index| dataset.items[index].factors.iter().copied())
            .collect();
        Some(Self {
            factors: dataset.factors.clone(),
            values,
        })
    }

    /// Value of a factor for a row.
    ///
    /// # Panics
    /// If there is no such row or factor.
    #[must_use]
    pub fn value(&self, row: usize, factor: usize) -> f64 {
        f64::from(self.values[row * self.factors.len() + factor])
    }

    /// Distance of two rows in one factor: the absolute difference, on a circle the shorter way round.
    ///
    /// # Panics
    /// If there is no such row or factor.
    #[must_use]
    pub fn distance(&self, factor: usize, a: usize, b: usize) -> f64 {
        let difference = (self.value(a, factor) - self.value(b, factor)).abs();
        match self.factors[factor].period {
            Some(period) => {
                let period = f64::from(period);
                let around = difference % period;
                around.min(period - around)
            }
            None => difference,
        }
    }

    /// Checks that the table describes `rows` rows.
    ///
    /// # Errors
    /// A wrong number of values, a value that is not finite, a period that is not positive, a name given twice.
    pub fn check(&self, rows: usize) -> Result<(), EvaluationError> {
        let columns = self.factors.len();
        if rows.checked_mul(columns) != Some(self.values.len()) {
            return Err(EvaluationError::Factors(format!(
                "the factor table has {} values of {columns} factors for {rows} embeddings; expected one value of each factor for \
                 every embedding, in the same order",
                self.values.len()
            )));
        }
        for (column, factor) in self.factors.iter().enumerate() {
            if factor
                .period
                .is_some_and(|period| !(period.is_finite() && period > 0.0))
            {
                return Err(EvaluationError::Factors(format!(
                    "the period of the circular factor {} is {}; expected a positive number, for example 360 for degrees",
                    factor.name,
                    factor.period.unwrap_or_default()
                )));
            }
            if self.factors[..column].iter().any(|other| other.name == factor.name) {
                return Err(EvaluationError::Factors(format!(
                    "the factor {} is given twice",
                    factor.name
                )));
            }
        }
        if let Some(at) = self.values.iter().position(|value| !value.is_finite()) {
            return Err(EvaluationError::Factors(format!(
                "the factor {} of row {} is {}; expected a finite number",
                self.factors[at % columns].name,
                at / columns,
                self.values[at]
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(period: Option<f32>, values: &[f32]) -> FactorTable {
        FactorTable {
            factors: vec![Factor {
                name: "angle".into(),
                period,
            }],
            values: values.to_vec(),
        }
    }

    #[test]
    fn circles_take_the_shorter_way() {
        let angles = table(Some(360.0), &[350.0, 10.0, 190.0, 730.0]);
        assert_eq!(angles.distance(0, 0, 1), 20.0);
        assert_eq!(angles.distance(0, 1, 2), 180.0);
        assert_eq!(angles.distance(0, 1, 3), 0.0);
        assert_eq!(table(None, &[350.0, 10.0]).distance(0, 0, 1), 340.0);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        assert!(table(None, &[1.0, 2.0]).check(2).is_ok());
        for (table, rows, word) in [
            (table(None, &[1.0]), 2, "1 values"),
            (table(None, &[1.0, f32::NAN]), 2, "row 1"),
            (table(Some(0.0), &[1.0]), 1, "period"),
            (table(Some(f32::NAN), &[1.0]), 1, "period"),
        ] {
            let error = table.check(rows).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let twice = FactorTable {
            factors: vec![
                Factor {
                    name: "a".into(),
                    period: None
                };
                2
            ],
            values: vec![0.0; 2],
        };
        assert!(twice.check(1).unwrap_err().to_string().contains("twice"));
    }
}
