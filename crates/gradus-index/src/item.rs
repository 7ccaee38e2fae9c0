//! What is found: an image with its class and payload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::IndexError;

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its name, unique in the index; of an image usually its path relative to the image root.
    pub id: String,
    /// Path of the image relative to the image root, with `/` between folders; none of an embedding without an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its class, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Anything else that is known of it; text, numbers and truth values (or lists of them) can be filtered by.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub payload: Map<String, Value>,
}

impl Item {
    /// An item of which only the name is known.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            image: None,
            class: None,
            payload: Map::new(),
        }
    }
}

/// What the values of a payload field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldKind {
    /// Text, compared as a whole.
    Text,
    /// A number (double precision).
    Number,
    /// True or false.
    Boolean,
}

impl FieldKind {
    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(_) => Some(Self::Text),
            Value::Number(_) => Some(Self::Number),
            Value::Bool(_) => Some(Self::Boolean),
            Value::Array(values) => values.iter().find_map(Self::of),
            Value::Null | Value::Object(_) => None,
        }
    }
}

/// The payload fields that can be filtered by, with the kind the first value of each had.
pub type Fields = BTreeMap<String, FieldKind>;

/// Adds the fields of `items` to `fields`.
///
/// # Errors
/// A value of another kind than its field has.
pub(crate) fn declare(fields: &mut Fields, items: &[Item]) -> Result<(), IndexError> {
    for item in items {
        for (name, value) in &item.payload {
            let Some(kind) = FieldKind::of(value) else { continue };
            if name.is_empty() || name.contains('"') || name == "class" {
                return Err(IndexError::Item(format!(
                    "item {}: \"{name}\" cannot name a field of the payload (class is the class of the item; a name must not be empty or \
                     hold a quotation mark)",
                    item.id
                )));
            }
            let expected = *fields.entry(name.clone()).or_insert(kind);
            let fits = match value {
                Value::Array(values) => values
                    .iter()
                    .all(|value| FieldKind::of(value).is_none_or(|kind| kind == expected)),
                _ => kind == expected,
            };
            if !fits {
                return Err(IndexError::Item(format!(
                    "item {}: the field {name} of the index is {}, but this value is {value}",
                    item.id,
                    expected.name()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: Value) -> Item {
        let mut item = Item::new("a");
        item.payload.insert(name.into(), value);
        item
    }

    #[test]
    fn fields_take_the_kind_of_their_first_value_and_keep_it() {
        let mut fields = Fields::new();
        let items = [
            with("price", 3.into()),
            with("price", 2.5.into()),
            with("tags", serde_json::json!(["a", "b"])),
        ];
        declare(&mut fields, &items).unwrap();
        assert_eq!(fields["price"], FieldKind::Number);
        assert_eq!(fields["tags"], FieldKind::Text);
        declare(&mut fields, &[with("price", Value::Null)]).unwrap();
        let message = declare(&mut fields, &[with("price", "dear".into())])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("price") && message.contains("a number") && message.contains("dear"),
            "{message}"
        );
        assert!(declare(&mut fields, &[with("class", 1.into())]).is_err());
        assert!(declare(&mut fields, &[with("tags", serde_json::json!(["a", 3]))]).is_err());
    }

    #[test]
    fn an_item_survives_json() {
        let item = Item {
            id: "a/1.jpg".into(),
            image: Some("a/1.jpg".into()),
            class: Some("a".into()),
            payload: serde_json::from_str(r#"{"price": 3, "nested": {"x": [1, null]}}"#).unwrap(),
        };
        let text = serde_json::to_string(&item).unwrap();
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item);
    }
}
