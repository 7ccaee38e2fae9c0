//! Pretrained weights from the files of other libraries.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::tensor::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};

use super::ModelError;
use super::backbones::{Normalisation, Trunk};
use crate::state::{NamedArray, load_named_arrays, named_shapes, read_safetensors, summarise};

/// What a file of weights says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightsInfo {
    /// Normalisation of the input, if the file states it.
    pub normalisation: Option<Normalisation>,
}

/// Reads what a file of weights says about itself; only safetensors files can say anything.
///
/// # Errors
/// If the file cannot be read or is damaged.
pub fn read_info(path: &Path) -> Result<WeightsInfo, ModelError> {
    read_file(path).map(|(_, info)| info)
}

/// Sets every parameter of a trunk from a file.
///
/// Names may be torchvision's, timm's or gradus' own, behind prefixes such as `module.` and `state_dict.`. Classifiers
/// and counters in the file are ignored.
///
/// # Errors
/// If the file is unreadable, or any parameter is missing, left over or of another shape.
pub fn load_trunk(trunk: Trunk, backbone: &str, path: &Path) -> Result<(Trunk, WeightsInfo), ModelError> {
    let (arrays, info) = read_file(path)?;
    let by_name: HashMap<&str, &NamedArray> = arrays.iter().map(|array| (array.name.as_str(), array)).collect();
    let (mut found, mut used) = (Vec::new(), HashSet::new());
    let (mut missing, mut other_shape, mut not_finite) = (Vec::new(), Vec::new(), Vec::new());
    for (name, shape) in named_shapes(&trunk) {
        let names = trunk.backbone().file_names(&name);
        let Some(array) = names.iter().chain([&name]).find_map(|name| by_name.get(name.as_str())) else {
            missing.push(names.into_iter().next().unwrap_or(name));
            continue;
        };
        used.insert(array.name.as_str());
        if array.shape != shape {
            other_shape.push(format!("{} is {:?}, expected {shape:?}", array.name, array.shape));
        } else if array.values.iter().any(|value| !value.is_finite()) {
            not_finite.push(array.name.clone());
        }
        found.push(NamedArray {
            name,
            ..(*array).clone()
        });
    }
    let unused: Vec<String> = arrays
        .iter()
        .map(|array| &array.name)
        .filter(|name| !used.contains(name.as_str()) && !is_head(name) && !trunk.backbone().leaves_out(name))
        .cloned()
        .collect();
    let problems: Vec<String> = [
        ("missing", missing),
        ("not part of it", unused),
        ("of another shape", other_shape),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what}: {}", summarise(&names)))
    .collect();
    if !problems.is_empty() {
        return Err(ModelError::Weights(format!(
            "The file {} holds the weights of another network than the backbone `{backbone}`, as configured. {}. Choose \
             the backbone and the options that the file was made for, or another file.",
            path.display(),
            problems.join("; ")
        )));
    }
    if !not_finite.is_empty() {
        return Err(ModelError::Weights(format!(
            "The file {} holds values that are not finite, in {}. Copy or download it again.",
            path.display(),
            summarise(&not_finite)
        )));
    }
    let trunk = load_named_arrays(trunk, &found)
        .map_err(|problem| ModelError::Weights(format!("The file {} does not fit: {problem}.", path.display())))?;
    Ok((trunk, info))
}

/// Whether an array belongs to what sits behind a backbone: a classifier, or gradus' own pooling and head.
fn is_head(name: &str) -> bool {
    ["fc.", "classifier.", "linear.", "head.", "pooling."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn read_file(path: &Path) -> Result<(Vec<NamedArray>, WeightsInfo), ModelError> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let (arrays, info) = match extension.as_str() {
        "safetensors" => {
            let (arrays, metadata) = read_safetensors(path)
                .map_err(|problem| ModelError::Weights(format!("Weights cannot be loaded: {problem}.")))?;
            let normalisation = metadata.get("input").and_then(|text| parse_normalisation(text));
            (arrays, WeightsInfo { normalisation })
        }
        "pth" | "pt" | "th" => (read_pytorch(path)?, WeightsInfo::default()),
        _ => {
            return Err(ModelError::Weights(format!(
                "The file of weights {} must end in .safetensors, .pth, .pt or .th, which tells its format.",
                path.display()
            )));
        }
    };
    let mut arrays = without_prefixes(arrays);
    arrays.retain(|array| !array.name.ends_with("num_batches_tracked"));
    Ok((arrays, info))
}

/// Goes into the containers that training scripts wrap a network in, and drops what lies beside them.
fn without_prefixes(mut arrays: Vec<NamedArray>) -> Vec<NamedArray> {
    const PREFIXES: [&str; 7] = [
        "state_dict.",
        "model_state_dict.",
        "model.",
        "module.",
        "backbone.",
        "encoder.",
        "trunk.",
    ];
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|prefix| arrays.iter().any(|array| array.name.starts_with(**prefix)))
    {
        arrays = arrays
            .into_iter()
            .filter_map(|array| {
                let name = array.name.strip_prefix(prefix)?.to_owned();
                Some(NamedArray { name, ..array })
            })
            .collect();
    }
    arrays
}

fn read_pytorch(path: &Path) -> Result<Vec<NamedArray>, ModelError> {
    let unreadable = |why: String| {
        ModelError::Weights(format!(
            "The file {} could not be read as a PyTorch checkpoint ({why}). Check that it is complete and was saved by \
             `torch.save`, or convert it to .safetensors.",
            path.display()
        ))
    };
    let reader = PytorchReader::new(path).map_err(|error| unreadable(error.to_string()))?;
    let mut arrays = Vec::with_capacity(reader.len());
    for (name, tensor) in reader.tensors() {
        fn read<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
        }
        // Counters are the only arrays of integers in a network.
        if !matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
            continue;
        }
        let bytes = tensor.read().map_err(|error| unreadable(error.to_string()))?;
        let values = match tensor.dtype() {
            DType::F64 => read(&bytes, |chunk| f64::from_ne_bytes(chunk) as f32),
            DType::F16 => read(&bytes, |chunk| f16::from_ne_bytes(chunk).to_f32()),
            DType::BF16 => read(&bytes, |chunk| bf16::from_ne_bytes(chunk).to_f32()),
            _ => read(&bytes, f32::from_ne_bytes),
        };
        arrays.push(NamedArray {
            name: name.clone(),
            shape: tensor.shape().to_vec(),
            values,
        });
    }
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}

/// Understands `RGB, (x-127.5)/127.5` and `RGB/255, mean .485 .456 .406, std .229 .224 .225`.
fn parse_normalisation(text: &str) -> Option<Normalisation> {
    let numbers = |text: &str| -> Vec<f32> {
        text.split(|character: char| !character.is_ascii_digit() && character != '.')
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    let usable =
        |(mean, deviation): Normalisation| deviation.iter().all(|value| *value > 0.0).then_some((mean, deviation));
    if let Some((_, after)) = text.split_once("(x-") {
        let [centre, scale] = numbers(after)[..] else {
            return None;
        };
        return usable(([centre / 255.0; 3], [scale / 255.0; 3]));
    }
    let (_, after) = text.split_once("mean")?;
    let (mean, deviation) = after.split_once("std")?;
    usable((numbers(mean).try_into().ok()?, numbers(deviation).try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisations_are_understood() {
        assert_eq!(parse_normalisation("RGB, (x-127.5)/127.5"), Some(([0.5; 3], [0.5; 3])));
        assert_eq!(
            parse_normalisation("RGB/255, mean .485 .456 .406, std .229 .224 .225"),
            Some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        );
        for text in [
            "",
            "RGB",
            "(x-)/",
            "(x-1)/0",
            "mean 1 2, std 1 2 3",
            "mean 0 0 0, std 0 1 1",
        ] {
            assert_eq!(parse_normalisation(text), None, "{text}");
        }
    }

    #[test]
    fn containers_are_opened_and_what_lies_beside_them_is_dropped() {
        let array = |name: &str| NamedArray {
            name: name.to_owned(),
            shape: vec![1],
            values: vec![0.0],
        };
        let names = |names: &[&str]| -> Vec<String> {
            without_prefixes(names.iter().map(|name| array(name)).collect())
                .into_iter()
                .map(|array| array.name)
                .collect()
        };
        assert_eq!(
            names(&["state_dict.module.conv1.weight", "optimizer.state.0.momentum"]),
            ["conv1.weight"]
        );
        assert_eq!(names(&["trunk.conv1.weight", "head.weight"]), ["conv1.weight"]);
        assert_eq!(names(&["conv1.weight", "fc.weight"]), ["conv1.weight", "fc.weight"]);
    }
}
