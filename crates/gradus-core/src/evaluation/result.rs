//! The result of an evaluation: named numbers, as JSON and as a table.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::MEASURES;

/// A number of an [`Evaluation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A measure; `None` where the data do not define it (one class only, no factor that varies, …).
    Measure(Option<f64>),
    /// A count.
    Count(u64),
}

/// Named numbers in a fixed order. Serialises to one flat map; undefined measures are `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    entries: Vec<(String, Value)>,
}

impl Evaluation {
    /// The number called `name`; `None` if there is none, or if it is undefined.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.entries
            .iter()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| match value {
                Value::Measure(measure) => *measure,
                Value::Count(count) => Some(*count as f64),
            })
    }

    /// All numbers, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Value)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Sets a measure. What is not finite becomes undefined.
    pub fn measure(&mut self, name: impl Into<String>, value: Option<f64>) {
        self.set(name.into(), Value::Measure(value.filter(|value| value.is_finite())));
    }

    /// Sets a count.
    pub fn count(&mut self, name: impl Into<String>, value: usize) {
        self.set(name.into(), Value::Count(value as u64));
    }

    fn set(&mut self, name: String, value: Value) {
        match self.entries.iter_mut().find(|(key, _)| *key == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((name, value)),
        }
    }

    /// A table for people, one number a line; with `explain`, what each one says behind it.
    #[must_use]
    pub fn table(&self, explain: bool) -> String {
        let width = self
            .entries
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let mut table = String::new();
        for (name, value) in &self.entries {
            let number = match value {
                Value::Measure(Some(measure)) => format!("{measure:.4}"),
                Value::Measure(None) => "undefined".to_owned(),
                Value::Count(count) => count.to_string(),
            };
            let line = match summary(name).filter(|_| explain) {
                Some(summary) => format!("{name:<width$}  {number:>9}  {summary}"),
                None => format!("{name:<width$}  {number:>9}"),
            };
            table.push_str(&line);
            table.push('\n');
        }
        table
    }

    /// One line for each number: what it says.
    #[must_use]
    pub fn explanations(&self) -> String {
        let width = self
            .entries
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let lines = self
            .entries
            .iter()
            .filter_map(|(name, _)| Some(format!("{name:<width$}  {}", summary(name)?)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What a number of a result says, in half a line; `None` for a name that no result has.
///
/// ```
/// use gradus_core::evaluation::explanation;
/// assert!(explanation("recall@1").is_some() && explanation("order_preservation.tilt").is_some());
/// assert_eq!(explanation("colour"), None);
/// ```
#[must_use]
pub fn explanation(name: &str) -> Option<&'static str> {
    summary(name)
}

fn summary(name: &str) -> Option<&'static str> {
    // Rates: `tar@far=0.001`.
    let name = name.split('=').next().unwrap_or(name);
    let family = match (name.split_once('@'), name.split_once('.')) {
        (Some((family, level)), _) if level.parse::<usize>().is_ok() => format!("{family}@K"),
        (_, Some((family, _))) => format!("{family}.FACTOR"),
        _ => name.to_owned(),
    };
    match name {
        "queries" => Some("images that searched"),
        "lone_queries" => Some("queries whose class has no other member to find"),
        "classes" => Some("classes among queries and gallery"),
        "order_skipped" => Some("queries, summed over factors, that had no order to preserve"),
        _ => MEASURES
            .iter()
            .find(|measure| measure.name == family)
            .map(|measure| measure.summary),
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.table(false))
    }
}

impl Serialize for Evaluation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (name, value) in &self.entries {
            match value {
                Value::Measure(measure) => map.serialize_entry(name, measure)?,
                Value::Count(count) => map.serialize_entry(name, count)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Evaluation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Evaluation;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of names to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Evaluation, A::Error> {
                let mut evaluation = Evaluation::default();
                while let Some((name, number)) = map.next_entry::<String, Option<serde_json::Number>>()? {
                    let value = match number {
                        Some(number) => match number.as_u64() {
                            Some(count) => Value::Count(count),
                            None => Value::Measure(number.as_f64()),
                        },
                        None => Value::Measure(None),
                    };
                    evaluation.set(name, value);
                }
                Ok(evaluation)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_flat_map_in_order_and_comes_back() {
        let mut evaluation = Evaluation::default();
        evaluation.measure("recall@1", Some(0.5));
        evaluation.measure("density", None);
        evaluation.measure("order_preservation.tilt", Some(f64::NAN));
        evaluation.count("queries", 12);
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(
            json,
            r#"{"recall@1":0.5,"density":null,"order_preservation.tilt":null,"queries":12}"#
        );
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
        assert_eq!(
            (
                evaluation.get("recall@1"),
                evaluation.get("density"),
                evaluation.get("queries")
            ),
            (Some(0.5), None, Some(12.0))
        );
    }

    #[test]
    fn tables_line_up_and_explain() {
        let mut evaluation = Evaluation::default();
        evaluation.measure("recall@10", Some(0.98766));
        evaluation.measure("order_preservation.tilt", None);
        evaluation.count("queries", 12);
        let table = evaluation.to_string();
        assert_eq!(table.lines().next(), Some("recall@10                   0.9877"));
        assert!(
            table
                .lines()
                .all(|line| line.chars().count() == table.lines().next().map_or(0, |line| line.chars().count()))
        );
        let explained = evaluation.table(true);
        assert!(explained.lines().all(|line| line.len() > 50), "{explained}");
    }
}
