//! `gradus index add`

use gradus_index::IndexError;
use serde_json::json;

use super::payload::Payload;
use super::source::Input;
use super::{open, run_of};
use crate::arguments::IndexAdd;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &IndexAdd) -> Outcome {
    let index = open(&arguments.index)?;
    let table = arguments.input.payload.as_deref();
    let payload = table
        .map(|path| Payload::read(path, &index.fields()))
        .transpose()?
        .unwrap_or_default();
    let run = match arguments.input.embeddings {
        Some(_) => None,
        None => Some(run_of(&index, arguments.run.as_ref())?),
    };
    let mut input = Input::open(&arguments.input, run.as_deref())?;
    if let Some(model) = input.model() {
        index.check_model(model)?;
    }
    if input.dimension() != index.dimension() {
        return Err(IndexError::Width {
            expected: index.dimension(),
            found: input.dimension(),
        }
        .into());
    }
    if let (Some(root), Some(known)) = (input.root(), index.image_root())
        && *root != known
    {
        return Err(Failure::new(format!(
            "the images of this index lie in {}, but --images names {}: paths of images start from one folder; move the images there, or build \
             an index of their common folder",
            known.display(),
            root.display()
        )));
    }
    input.number_from(index.rows());
    index.declare(&payload.fields)?;
    let entered = input.enter(
        &arguments.input,
        &payload,
        &|id| index.contains(id),
        &mut |items, vectors| Ok(index.add(items, vectors)?),
    )?;
    if entered.added > 0 {
        index.optimize()?;
    }
    if arguments.json {
        return output::json(&json!({
            "index": arguments.index, "added": entered.added, "skipped": entered.skipped, "bad_images": entered.bad,
            "count": index.len(),
        }));
    }
    output::text(&format!(
        "{} items added, {} were there already, {} broken images left out; the index holds {}",
        entered.added,
        entered.skipped,
        entered.bad,
        index.len()
    ))
}
