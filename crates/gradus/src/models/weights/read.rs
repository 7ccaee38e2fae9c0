//! Files of weights: what they hold, out of the containers that training scripts wrap them in.

use std::collections::HashSet;
use std::path::Path;

use burn::tensor::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};

use crate::models::ModelError;
use crate::models::backbones::Normalisation;
use crate::state::{NamedArray, read_safetensors};

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

/// The arrays of a file, counters left out, and what it says about itself.
///
/// # Errors
/// If the file cannot be read or is damaged, or its name does not tell its format.
pub fn read_file(path: &Path) -> Result<(Vec<NamedArray>, WeightsInfo), ModelError> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let (mut arrays, info) = match extension.as_str() {
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
    arrays.retain(|array| !array.name.ends_with("num_batches_tracked"));
    Ok((arrays, info))
}

/// Goes into the containers that training scripts wrap a network in, and drops what lies beside them, until a name is known.
///
/// The order matters to torchvision's vision transformers, of which `encoder.` is a part rather than a container.
pub(super) fn without_containers(mut arrays: Vec<NamedArray>, known: &HashSet<String>) -> Vec<NamedArray> {
    const PREFIXES: [&str; 7] = [
        "state_dict.",
        "model_state_dict.",
        "model.",
        "module.",
        "backbone.",
        "encoder.",
        "trunk.",
    ];
    while !arrays.iter().any(|array| known.contains(&array.name)) {
        let Some(prefix) = PREFIXES
            .iter()
            .find(|prefix| arrays.iter().any(|array| array.name.starts_with(**prefix)))
        else {
            break;
        };
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
        let known: HashSet<String> = ["conv1.weight", "encoder.ln.weight"].map(str::to_owned).into();
        let names = |names: &[&str]| -> Vec<String> {
            without_containers(names.iter().map(|name| array(name)).collect(), &known)
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
        // What looks like a container is none where the network knows the whole name.
        let whole = ["class_token", "encoder.ln.weight"];
        assert_eq!(names(&whole), whole);
        assert_eq!(names(&["module.class_token", "module.encoder.ln.weight"]), whole);
        // A network that knows no name of the file still sees what lies in the containers.
        assert_eq!(names(&["module.encoder.norm.weight"]), ["norm.weight"]);
    }
}
