//! `gradus index delete`

use gradus_index::Filter;
use serde_json::json;

use super::open;
use crate::arguments::IndexDelete;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &IndexDelete) -> Outcome {
    let index = open(&arguments.index)?;
    let deleted = if arguments.ids.is_empty() {
        index.delete_matching(&Filter::parse(&arguments.filters, &index.fields())?)?
    } else {
        if let Some(missing) = arguments.ids.iter().find(|id| !index.contains(id)) {
            return Err(Failure::new(format!(
                "the index {} has no item {missing}; nothing was deleted",
                arguments.index.display()
            )));
        }
        let ids: Vec<&str> = arguments.ids.iter().map(String::as_str).collect();
        index.delete(&ids)?
    };
    if deleted > 0 {
        index.optimize()?;
    }
    if arguments.json {
        return output::json(&json!({"index": arguments.index, "deleted": deleted, "count": index.len()}));
    }
    output::text(&format!("{deleted} items deleted; the index holds {}", index.len()))
}
