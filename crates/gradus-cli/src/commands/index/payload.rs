//! A table of what else is known of items.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use gradus_index::{FieldKind, Fields, Item};
use serde_json::Value;

use crate::failure::Failure;

/// Columns that may name the item.
const KEYS: [&str; 3] = ["image", "path", "id"];
/// Columns that may name its class.
const CLASSES: [&str; 2] = ["class", "label"];

/// The rows of a payload table by the item they are about.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) fields: Fields,
    rows: HashMap<String, Row>,
}

#[derive(Debug, Default)]
struct Row {
    class: Option<String>,
    values: Vec<(String, Value)>,
}

impl Payload {
    /// Reads a table. A column is numbers, or true and false, where all its cells are; else it is text. Columns that `known` has keep their kind.
    pub(super) fn read(path: &Path, known: &Fields) -> Result<Self, Failure> {
        let failed = |problem: String| Failure::new(format!("{}: {problem}", path.display()));
        let mut table = csv::Reader::from_path(path).map_err(|error| failed(error.to_string()))?;
        let header: Vec<String> = table
            .headers()
            .map_err(|error| failed(error.to_string()))?
            .iter()
            .map(|name| name.trim().trim_start_matches('\u{feff}').to_owned())
            .collect();
        let position = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| header.iter().position(|column| column == name))
        };
        let Some(key) = position(&KEYS) else {
            return Err(failed(format!(
                "expected a column {} that names the item, found {}",
                KEYS.join(" or "),
                header.join(", ")
            )));
        };
        let class = position(&CLASSES);
        let records = table
            .records()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let mut kinds: BTreeMap<usize, FieldKind> = BTreeMap::new();
        for (column, name) in header.iter().enumerate() {
            if column == key || Some(column) == class {
                continue;
            }
            if name.is_empty() || name == "class" || name.contains('"') {
                return Err(failed(format!(
                    "the column \"{name}\" cannot be a field: give it another name"
                )));
            }
            let cells = || {
                records
                    .iter()
                    .filter_map(|record| record.get(column))
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
            };
            let kind = if cells().all(|cell| number(cell).is_some()) {
                FieldKind::Number
            } else if cells().all(|cell| cell.parse::<bool>().is_ok()) {
                FieldKind::Boolean
            } else {
                FieldKind::Text
            };
            kinds.insert(column, known.get(name).copied().unwrap_or(kind));
        }
        let mut rows = HashMap::with_capacity(records.len());
        for (number, record) in records.iter().enumerate() {
            let name = record.get(key).unwrap_or_default().trim();
            let cell = |column: usize| record.get(column).map(str::trim).filter(|cell| !cell.is_empty());
            let mut row = Row {
                class: class.and_then(cell).map(str::to_owned),
                values: Vec::new(),
            };
            for (&column, &kind) in &kinds {
                let Some(text) = cell(column) else { continue };
                let value = value(text, kind).ok_or_else(|| {
                    failed(format!(
                        "line {}: the field {} of the index is {}, found \"{text}\"",
                        number + 2,
                        header[column],
                        kind.name()
                    ))
                })?;
                row.values.push((header[column].clone(), value));
            }
            if name.is_empty() || rows.insert(name.to_owned(), row).is_some() {
                return Err(failed(format!(
                    "line {}: \"{name}\" is no name, or stands there twice",
                    number + 2
                )));
            }
        }
        Ok(Self {
            fields: kinds
                .into_iter()
                .map(|(column, kind)| (header[column].clone(), kind))
                .collect(),
            rows,
        })
    }

    /// Puts what is known of an item into it.
    pub(super) fn apply(&self, item: &mut Item) -> bool {
        let row = self.rows.get(&item.id).or_else(|| self.rows.get(item.image.as_ref()?));
        if let Some(row) = row {
            if row.class.is_some() {
                item.class.clone_from(&row.class);
            }
            item.payload.extend(row.values.iter().cloned());
        }
        row.is_some()
    }

    /// Rows of the table.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn value(text: &str, kind: FieldKind) -> Option<Value> {
    match kind {
        FieldKind::Text => Some(text.into()),
        FieldKind::Boolean => text.parse::<bool>().ok().map(Value::Bool),
        FieldKind::Number => text
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| number(text).map(Value::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_kind_of_their_cells() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "image,class,price,new,code\na/1.jpg,cat,3,true,007\na/2.jpg,,2.5,false,x7\na/3.jpg,dog,,,\n";
        std::fs::write(file.path(), text).unwrap();
        let table = Payload::read(file.path(), &Fields::new()).unwrap();
        assert_eq!(table.len(), 3);
        assert_eq!(table.fields["price"], FieldKind::Number);
        assert_eq!(table.fields["new"], FieldKind::Boolean);
        assert_eq!(table.fields["code"], FieldKind::Text);
        let mut item = Item::new("a/1.jpg");
        assert!(table.apply(&mut item));
        assert_eq!(item.class.as_deref(), Some("cat"));
        assert_eq!(
            Value::from(item.payload),
            serde_json::json!({"price": 3, "new": true, "code": "007"})
        );
        let mut item = Item {
            class: Some("bird".into()),
            ..Item::new("a/2.jpg")
        };
        assert!(table.apply(&mut item) && item.class.as_deref() == Some("bird"));
        assert!(!table.apply(&mut Item::new("b")));
        let known = Fields::from([("code".to_owned(), FieldKind::Number)]);
        let message = Payload::read(file.path(), &known).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("x7"), "{message}");
    }
}
