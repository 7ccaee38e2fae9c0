//! Pretrained weights from the files of other libraries, and back into files they read.

mod differences;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

pub use differences::{Differences, OtherShape, compare};
pub use read::{WeightsInfo, read_file, read_info};

use super::ModelError;
use super::backbones::{BACKBONES, BackboneConfig, Family, Normalisation, Trunk};
use super::layers::Builder;
use crate::state::{NamedArray, load_named_arrays, named_arrays, summarise, write_safetensors};
use crate::tensor::Device;

/// Sets every parameter of a trunk from a file.
///
/// Names may be those of any of the backbone's families (torchvision's, timm's, the authors') or gradus' own, behind prefixes such
/// as `module.` and `state_dict.`. Classifiers and counters in the file are ignored; axes of extent 1 do not matter.
///
/// # Errors
/// If the file is unreadable, or any parameter is missing, left over or of another shape.
pub fn load_trunk(trunk: Trunk, backbone: &str, path: &Path) -> Result<(Trunk, WeightsInfo), ModelError> {
    let (arrays, info) = read_file(path)?;
    let (differences, found) = compare(&trunk, arrays);
    if !differences.fits() {
        let other = match fitting(path)? {
            Some(other) if other != backbone => format!("They are those of the backbone `{other}`. "),
            _ => String::new(),
        };
        return Err(ModelError::Weights(format!(
            "The file {} holds the weights of another network than the backbone `{backbone}`, as configured. {}. {other}Choose the \
             backbone and the options that the file was made for, or another file; `gradus weights check` lists every difference.",
            path.display(),
            differences.summary()
        )));
    }
    if !differences.not_finite.is_empty() {
        return Err(ModelError::Weights(format!(
            "The file {} holds values that are not finite, in {}. Copy or download it again.",
            path.display(),
            summarise(&differences.not_finite)
        )));
    }
    let trunk = load_named_arrays(trunk, &found)
        .map_err(|problem| ModelError::Weights(format!("The file {} does not fit: {problem}.", path.display())))?;
    Ok((trunk, info))
}

/// A trunk without weights, to compare files with.
#[must_use]
pub fn blank_trunk(backbone: &BackboneConfig) -> Trunk {
    let device = Device::default().without_autodiff();
    backbone.build(&Builder {
        seed: 0,
        device: &device,
        freeze_batch_norm: false,
        blank: true,
    })
}

/// The backbone, with default options, that the arrays of a file differ least from, and the differences.
///
/// # Errors
/// If there is no backbone at all.
pub fn nearest(arrays: &[NamedArray]) -> Result<(&'static str, Differences), ModelError> {
    let mut best: Option<(&'static str, Differences)> = None;
    for info in BACKBONES {
        let trunk = blank_trunk(&BackboneConfig::by_name(info.name)?);
        let (differences, _) = compare(&trunk, arrays.to_vec());
        if best.as_ref().is_none_or(|(_, best)| differences.count() < best.count()) {
            best = Some((info.name, differences));
        }
    }
    best.ok_or_else(|| ModelError::Config("There is no backbone to compare with.".to_owned()))
}

/// The name of the backbone, with default options, that a file holds all the weights of.
///
/// # Errors
/// If the file cannot be read.
pub fn fitting(path: &Path) -> Result<Option<&'static str>, ModelError> {
    let (mut arrays, _) = read_file(path)?;
    // Only names and shapes are looked at, so that no values need be copied.
    arrays.iter_mut().for_each(|array| array.values = Vec::new());
    let (name, differences) = nearest(&arrays)?;
    Ok(differences.fits().then_some(name))
}

/// Writes the weights of a trunk as safetensors under the names and shapes of a family, without a classifier, with the normalisation
/// of the images as metadata; tells how many arrays there are.
///
/// # Errors
/// If the backbone has no names in this family, or the file cannot be written.
pub fn write_trunk(
    trunk: &Trunk,
    backbone: &BackboneConfig,
    family: Family,
    normalisation: Normalisation,
    path: &Path,
) -> Result<usize, ModelError> {
    let info = backbone.info();
    let Some(position) = info.families.iter().position(|known| *known == family) else {
        let names: Vec<&str> = info.families.iter().map(|family| family.name()).collect();
        let known = match names.as_slice() {
            [] => "it is gradus' own, and no other library knows it".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        return Err(ModelError::Config(format!(
            "The backbone `{}` has no names of the family `{}`; {known}.",
            info.name,
            family.name()
        )));
    };
    let arrays: Vec<NamedArray> = named_arrays(trunk)
        .into_iter()
        .map(|array| {
            let mut names = trunk.backbone().file_names(&array.name);
            NamedArray {
                shape: trunk.backbone().file_shape(family, &array.name, &array.shape),
                name: names.swap_remove(position),
                values: array.values,
            }
        })
        .collect();
    let (mean, deviation) = normalisation;
    let numbers = |values: [f32; 3]| values.map(|value| value.to_string()).join(" ");
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("network".to_owned(), info.name.to_owned()),
        (
            "input".to_owned(),
            format!("RGB/255, mean {}, std {}", numbers(mean), numbers(deviation)),
        ),
    ]);
    write_safetensors(path, &arrays, &metadata).map_err(ModelError::Weights)?;
    Ok(arrays.len())
}
