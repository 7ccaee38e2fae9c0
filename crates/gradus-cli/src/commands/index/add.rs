//! `gradus index add`

use gradus_index::IndexError;
use serde_json::json;

use super::payload::Payload;
use super::source::Input;
use super::{Target, run_of};
use crate::arguments::IndexAdd;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &IndexAdd) -> Outcome {
    let mut target = Target::open(&arguments.place)?;
    let table = arguments.input.payload.as_deref();
    let payload = table
        .map(|path| Payload::read(path, &target.fields()))
        .transpose()?
        .unwrap_or_default();
    let run = match arguments.input.embeddings {
        Some(_) => None,
        None => Some(run_of(&target, arguments.run.as_ref())?),
    };
    let mut input = Input::open(&arguments.input, run.as_deref())?;
    if let Some(model) = input.model() {
        target.check_model(model)?;
    }
    if input.dimension() != target.dimension() {
        return Err(IndexError::Width {
            expected: target.dimension(),
            found: input.dimension(),
        }
        .into());
    }
    if let (Some(root), Some(known)) = (input.root(), target.image_root())
        && *root != known
    {
        return Err(Failure::new(format!(
            "the images of this index lie in {}, but --images names {}: paths of images start from one folder; move the images there, or build \
             an index of their common folder",
            known.display(),
            root.display()
        )));
    }
    input.number_from(target.first_number()?);
    target.declare(&payload.fields)?;
    let names = input.names();
    let present = target.present(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let entered = input.enter(
        &arguments.input,
        &payload,
        &|id| present.contains(id),
        &mut |items, vectors| Ok(target.add(items, vectors)?),
    )?;
    if entered.added > 0 {
        target.optimize()?;
    }
    let count = target.count()?;
    if arguments.json {
        return output::json(&json!({
            "index": target.name(), "added": entered.added, "skipped": entered.skipped, "bad_images": entered.bad, "count": count,
        }));
    }
    output::text(&format!(
        "{} items added, {} were there already, {} broken images left out; {} holds {count}",
        entered.added,
        entered.skipped,
        entered.bad,
        target.name()
    ))
}
