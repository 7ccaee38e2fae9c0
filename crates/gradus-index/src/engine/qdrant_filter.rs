//! Filters as Qdrant writes them, in process and over the network alike.

use serde_json::{Value, json};

use crate::filter::{Condition, Field, Filter, Range, Scalar, Test};

/// Payload field of the class.
pub(crate) const CLASS: &str = "class";
/// Payload field under which the payload of the item lies.
pub(crate) const PAYLOAD: &str = "payload";

/// Where Qdrant finds a field of the payload.
pub(crate) fn key(name: &str) -> String {
    format!("{PAYLOAD}.\"{name}\"")
}

/// The filter in Qdrant's JSON; none where every item passes.
pub(crate) fn to_json(filter: &Filter) -> Option<Value> {
    let (mut must, mut must_not) = (Vec::new(), Vec::new());
    for Condition { field, test } in &filter.all {
        let key = match field {
            Field::Class => CLASS.to_owned(),
            Field::Payload(name) => key(name),
        };
        let any =
            |values: &[Scalar]| json!({"should": values.iter().map(|value| equals(&key, value)).collect::<Vec<_>>()});
        match test {
            Test::AnyOf(values) => must.push(any(values)),
            Test::NoneOf(values) => must_not.push(any(values)),
            Test::Range(range) => must.push(json!({"key": key, "range": bounds(range)})),
        }
    }
    (!filter.is_empty()).then(|| json!({"must": must, "must_not": must_not}))
}

fn equals(key: &str, value: &Scalar) -> Value {
    match value {
        Scalar::Text(text) => json!({"key": key, "match": {"value": text}}),
        Scalar::Boolean(flag) => json!({"key": key, "match": {"value": flag}}),
        // Qdrant matches integers only; a range of one number is the same.
        Scalar::Number(number) => json!({"key": key, "range": {"gte": number, "lte": number}}),
    }
}

fn bounds(range: &Range) -> Value {
    json!({"gt": range.above, "gte": range.at_least, "lt": range.below, "lte": range.at_most})
}
