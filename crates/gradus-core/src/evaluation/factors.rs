//! Known factors of variation of evaluated items, and how far apart two items are in them.

use std::path::Path;

use super::EvaluationError;
use crate::data::{Dataset, Factor};
use crate::embeddings::read_factors;

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

    /// Reads factors from a table or an array; `circular` names those that close on themselves, with their period.
    ///
    /// `.csv`: a heading, then one line for each row; the columns `row`, `path`, `id`, `label` and `class` say nothing of
    /// factors. `.npy`: `[rows, factors]` or `[rows]`, called factor0, factor1, …; a single one takes the name in `circular`.
    ///
    /// # Errors
    /// A file that cannot be read, a cell that is no number, a circular factor that is not there.
    pub fn read(path: &Path, circular: &[(String, f32)]) -> Result<Self, EvaluationError> {
        let is_csv = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let (mut names, values) = if is_csv { from_csv(path)? } else { from_npy(path)? };
        if let ([name], [(only, _)], false) = (names.as_mut_slice(), circular, is_csv) {
            name.clone_from(only);
        }
        if let Some((unknown, _)) = circular.iter().find(|(name, _)| !names.contains(name)) {
            return Err(EvaluationError::Factors(format!(
                "the circular factor {unknown} is not in {}; its factors are {}",
                path.display(),
                names.join(", ")
            )));
        }
        let factors = names.into_iter().map(|name| Factor {
            period: circular
                .iter()
                .find(|(circle, _)| *circle == name)
                .map(|(_, period)| *period),
            name,
        });
        Ok(Self {
            factors: factors.collect(),
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

fn from_npy(path: &Path) -> Result<(Vec<String>, Vec<f32>), EvaluationError> {
    let (columns, values) = read_factors(path)?;
    Ok(((0..columns).map(|column| format!("factor{column}")).collect(), values))
}

fn from_csv(path: &Path) -> Result<(Vec<String>, Vec<f32>), EvaluationError> {
    let problem = |problem: String| EvaluationError::Factors(format!("{}: {problem}", path.display()));
    let mut reader = csv::Reader::from_path(path).map_err(|error| problem(format!("not a readable table: {error}")))?;
    let heading = reader
        .headers()
        .map_err(|error| problem(format!("not a readable table: {error}")))?
        .clone();
    let columns: Vec<usize> = (0..heading.len())
        .filter(|&column| !["row", "path", "id", "label", "class"].contains(&heading[column].trim()))
        .collect();
    if columns.is_empty() {
        return Err(problem(
            "expected a heading with at least one factor, found none".into(),
        ));
    }
    let mut values = Vec::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|error| problem(format!("not a readable table: {error}")))?;
        for &column in &columns {
            let cell = record.get(column).unwrap_or_default().trim();
            values.push(cell.parse().map_err(|_| {
                problem(format!(
                    "the factor {} of row {row} is \"{cell}\"; expected a number",
                    &heading[column]
                ))
            })?);
        }
    }
    Ok((
        columns
            .iter()
            .map(|&column| heading[column].trim().to_owned())
            .collect(),
        values,
    ))
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

    #[test]
    fn tables_and_arrays_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.csv");
        std::fs::write(&path, "path,angle,light\na.png,10,0.5\nb.png,350,0.25\n").unwrap();
        let table = FactorTable::read(&path, &[("angle".into(), 360.0)]).unwrap();
        assert_eq!(table.values, [10.0, 0.5, 350.0, 0.25]);
        assert_eq!([table.factors[0].period, table.factors[1].period], [Some(360.0), None]);
        let error = FactorTable::read(&path, &[("tilt".into(), 360.0)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("tilt") && error.contains("angle, light"), "{error}");
        std::fs::write(&path, "angle\n10\nx\n").unwrap();
        let error = FactorTable::read(&path, &[]).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("\"x\""), "{error}");
    }
}
