//! `gradus export`

mod matrix;
mod model;
#[cfg(feature = "onnx")]
mod verified;

use crate::arguments::{Export, ExportFormat};
use crate::failure::Outcome;

pub(crate) fn run(arguments: &Export) -> Outcome {
    match arguments.format {
        ExportFormat::Onnx => model::run(arguments),
        ExportFormat::Matrix => matrix::run(arguments),
    }
}
