//! `gradus index delete`

use gradus_index::Filter;
use serde_json::json;

use super::Target;
use crate::arguments::IndexDelete;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &IndexDelete) -> Outcome {
    let target = Target::open(&arguments.place)?;
    let deleted = if arguments.ids.is_empty() {
        target.delete_matching(&Filter::parse(&arguments.filters, &target.fields())?)?
    } else {
        let ids: Vec<&str> = arguments.ids.iter().map(String::as_str).collect();
        let present = target.present(&ids)?;
        if let Some(missing) = ids.iter().find(|id| !present.contains(**id)) {
            return Err(Failure::new(format!(
                "{} has no item {missing}; nothing was deleted",
                target.name()
            )));
        }
        target.delete(&ids)?
    };
    if deleted > 0 {
        target.optimize()?;
    }
    let count = target.count()?;
    if arguments.json {
        return output::json(&json!({"index": target.name(), "deleted": deleted, "count": count}));
    }
    output::text(&format!("{deleted} items deleted; {} holds {count}", target.name()))
}
