//! Which items may be found.

use serde_json::Value;

use crate::IndexError;
use crate::item::{FieldKind, Fields, Item};

/// A value that items are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Text, compared as a whole.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Boolean(bool),
}

impl Scalar {
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(text), Value::String(value)) => text == value,
            (Self::Number(number), Value::Number(value)) => value.as_f64() == Some(*number),
            (Self::Boolean(flag), Value::Bool(value)) => flag == value,
            (_, Value::Array(values)) => values.iter().any(|value| !value.is_array() && self.equals(value)),
            _ => false,
        }
    }
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// The class of the item.
    Class,
    /// A field of its payload.
    Payload(String),
}

/// What a condition asks for. Of a list, one value is enough; an item without the field has no value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A value that is one of these.
    AnyOf(Vec<Scalar>),
    /// No value that is one of these; items without the field pass.
    NoneOf(Vec<Scalar>),
    /// A number inside all of these bounds.
    Range(Range),
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Range {
    /// Greater than.
    pub above: Option<f64>,
    /// Greater or equal.
    pub at_least: Option<f64>,
    /// Less than.
    pub below: Option<f64>,
    /// Less or equal.
    pub at_most: Option<f64>,
}

impl Range {
    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64().is_some_and(|number| {
                self.above.is_none_or(|bound| number > bound)
                    && self.at_least.is_none_or(|bound| number >= bound)
                    && self.below.is_none_or(|bound| number < bound)
                    && self.at_most.is_none_or(|bound| number <= bound)
            }),
            Value::Array(values) => values.iter().any(|value| !value.is_array() && self.contains(value)),
            _ => false,
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    /// What it must be.
    pub test: Test,
}

/// Conditions that must all hold; none let every item pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// The conditions.
    pub all: Vec<Condition>,
}

/// The operators, longer ones first.
const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];

impl Filter {
    /// Items of one class.
    #[must_use]
    pub fn class(name: impl Into<String>) -> Self {
        Self {
            all: vec![Condition {
                field: Field::Class,
                test: Test::AnyOf(vec![Scalar::Text(name.into())]),
            }],
        }
    }

    /// Whether every item passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Reads conditions as they are typed: `class=x`, `price<=3`, `colour!=red`. `class` is the class of the item, everything else a field
    /// of the payload. Several `=` of one field mean any of these values; different conditions must all hold.
    ///
    /// # Errors
    /// Text without an operator, a field the index does not have, a value of another kind than the field.
    ///
    /// ```
    /// use gradus_index::{FieldKind, Fields, Filter};
    ///
    /// let fields = Fields::from([("price".to_owned(), FieldKind::Number)]);
    /// let filter = Filter::parse(&["class=cat", "class=dog", "price<3"], &fields)?;
    /// assert_eq!(filter.all.len(), 2);
    /// assert!(Filter::parse(&["prise<3"], &fields).unwrap_err().to_string().contains("price"));
    /// # Ok::<(), gradus_index::IndexError>(())
    /// ```
    pub fn parse<T: AsRef<str>>(texts: &[T], fields: &Fields) -> Result<Self, IndexError> {
        let mut filter = Self::default();
        for text in texts {
            filter.push(text.as_ref(), fields)?;
        }
        Ok(filter)
    }

    fn push(&mut self, text: &str, fields: &Fields) -> Result<(), IndexError> {
        let found = OPERATORS
            .iter()
            .filter_map(|operator| Some((text.find(operator)?, *operator)))
            .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())));
        let Some((at, operator)) = found else {
            return Err(IndexError::Filter(format!(
                "--filter {text}: expected a field, one of = != < <= > >= and a value, such as class=cat"
            )));
        };
        let (name, value) = (text[..at].trim(), text[at + operator.len()..].trim());
        let (field, kind) = if name == "class" {
            (Field::Class, FieldKind::Text)
        } else if let Some(kind) = fields.get(name) {
            (Field::Payload(name.to_owned()), *kind)
        } else {
            let known: Vec<&str> = std::iter::once("class")
                .chain(fields.keys().map(String::as_str))
                .collect();
            return Err(IndexError::Filter(format!(
                "--filter {text}: the index has no field {name}; its fields are {}",
                known.join(", ")
            )));
        };
        let wrong = |expected: &str| {
            IndexError::Filter(format!(
                "--filter {text}: expected {expected} behind {operator}, found \"{value}\""
            ))
        };
        let number = || value.parse::<f64>().ok().filter(|number| number.is_finite());
        let scalar = match kind {
            FieldKind::Text => Some(Scalar::Text(value.to_owned())),
            FieldKind::Number => number().map(Scalar::Number),
            FieldKind::Boolean => value.parse().ok().map(Scalar::Boolean),
        };
        let mut range = Range::default();
        let test = match operator {
            "=" | "!=" => {
                let scalar = scalar.ok_or_else(|| wrong(kind.name()))?;
                if operator == "=" {
                    for condition in &mut self.all {
                        if let (true, Test::AnyOf(values)) = (condition.field == field, &mut condition.test) {
                            values.push(scalar);
                            return Ok(());
                        }
                    }
                    Test::AnyOf(vec![scalar])
                } else {
                    Test::NoneOf(vec![scalar])
                }
            }
            _ => {
                if kind != FieldKind::Number {
                    return Err(IndexError::Filter(format!(
                        "--filter {text}: {name} is {}, which has no order; use = or !=",
                        kind.name()
                    )));
                }
                let bound = Some(number().ok_or_else(|| wrong("a number"))?);
                match operator {
                    "<" => range.below = bound,
                    "<=" => range.at_most = bound,
                    ">" => range.above = bound,
                    _ => range.at_least = bound,
                }
                Test::Range(range)
            }
        };
        self.all.push(Condition { field, test });
        Ok(())
    }

    /// Whether an item passes.
    #[must_use]
    pub fn matches(&self, item: &Item) -> bool {
        self.all.iter().all(|condition| {
            let class;
            let value = match &condition.field {
                Field::Class => {
                    class = item.class.clone().map_or(Value::Null, Value::String);
                    &class
                }
                Field::Payload(name) => item.payload.get(name).unwrap_or(&Value::Null),
            };
            match &condition.test {
                Test::AnyOf(values) => values.iter().any(|scalar| scalar.equals(value)),
                Test::NoneOf(values) => !values.iter().any(|scalar| scalar.equals(value)),
                Test::Range(range) => range.contains(value),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(class: Option<&str>, payload: &str) -> Item {
        Item {
            class: class.map(str::to_owned),
            payload: serde_json::from_str(payload).unwrap(),
            ..Item::new("x")
        }
    }

    fn passes(texts: &[&str], item: &Item) -> bool {
        let fields = Fields::from([
            ("price".to_owned(), FieldKind::Number),
            ("colour".to_owned(), FieldKind::Text),
            ("new".to_owned(), FieldKind::Boolean),
        ]);
        Filter::parse(texts, &fields).unwrap().matches(item)
    }

    #[test]
    fn conditions_mean_what_they_say() {
        let red = item(Some("cat"), r#"{"price": 3, "colour": ["red", "blue"], "new": true}"#);
        let bare = item(None, "{}");
        for (texts, on_red, on_bare) in [
            (&["class=cat"][..], true, false),
            (&["class!=cat"], false, true),
            (&["class=dog", "class=cat"], true, false),
            (&["class=dog"], false, false),
            (&["price<=3"], true, false),
            (&["price<3"], false, false),
            (&["price>2", "price<4"], true, false),
            (&["price=3.0"], true, false),
            (&["colour=blue"], true, false),
            (&["colour!=blue"], false, true),
            (&["colour = green"], false, false),
            (&["new=true"], true, false),
            (&["new!=false", "class=cat"], true, false),
            (&[], true, true),
        ] {
            assert_eq!(
                (passes(texts, &red), passes(texts, &bare)),
                (on_red, on_bare),
                "{texts:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let fields = Fields::from([
            ("price".to_owned(), FieldKind::Number),
            ("new".to_owned(), FieldKind::Boolean),
        ]);
        for (text, expected) in [
            ("cat", "class=cat"),
            ("price<dear", "a number"),
            ("price=nan", "a number"),
            ("class<3", "no order"),
            ("new=perhaps", "true or false"),
            ("prices=3", "its fields are class, new, price"),
        ] {
            let message = Filter::parse(&[text], &fields).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
