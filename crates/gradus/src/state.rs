//! Named host copies of parameters: what checkpoints and weight files hold.
//!
//! Names are dotted paths through the fields of a module. The variant of an enum is left out of the path: a file says
//! `trunk.layer1.0.conv1.weight` whichever backbone the enum holds.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{bf16, f16};
use gradus_core::files::write_atomically;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::tensor::{Module, ModuleMapper, ModuleVisitor, Param, Tensor, TensorData};

/// A named array on the host.
///
/// # Shapes
/// `values` is row-major with as many entries as the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// Dotted path, for example `trunk.layer1.0.conv1.weight`.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// All values.
    pub values: Vec<f32>,
}

/// The dotted path of a parameter, kept by visitors and mappers from `enter_module` and `exit_module`.
///
/// ```
/// use gradus::state::ModulePath;
/// let mut path = ModulePath::default();
/// path.enter("trunk", "Struct:Embedder");
/// path.enter("Resnet", "Enum:Trunk");
/// path.enter("conv1", "Struct:Resnet");
/// assert_eq!(path.dotted(), "trunk.conv1");
/// path.exit();
/// assert_eq!(path.dotted(), "trunk");
/// ```
#[derive(Clone, Debug, Default)]
pub struct ModulePath {
    segments: Vec<Option<String>>,
}

impl ModulePath {
    /// Goes one level down; `container` is what Burn passes as the container's type.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.segments
            .push((!container.starts_with("Enum")).then(|| name.to_owned()));
    }

    /// Goes one level up.
    pub fn exit(&mut self) {
        self.segments.pop();
    }

    /// The path so far, without the variants of enums.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.segments
            .iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".")
    }
}

/// Copies every floating-point parameter and running statistic of a module to the host, in the order of its fields.
///
/// # Panics
/// If the device fails to hand its memory back.
#[must_use]
pub fn named_arrays<M: Module>(module: &M) -> Vec<NamedArray> {
    struct Reader {
        path: ModulePath,
        arrays: Vec<NamedArray>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            self.arrays.push(NamedArray {
                name: self.path.dotted(),
                shape: value.dims().to_vec(),
                values: value
                    .try_into_vec_as::<f32>()
                    .expect("the device hands its memory back"),
            });
        }
    }
    let mut reader = Reader {
        path: ModulePath::default(),
        arrays: Vec::new(),
    };
    module.visit(&mut reader);
    reader.arrays
}

/// The names and shapes of every floating-point parameter and running statistic, without reading any value.
#[must_use]
pub fn named_shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    struct Reader {
        path: ModulePath,
        shapes: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.shapes.push((self.path.dotted(), param.dims().to_vec()));
        }
    }
    let mut reader = Reader {
        path: ModulePath::default(),
        shapes: Vec::new(),
    };
    module.visit(&mut reader);
    reader.shapes
}

/// Replaces every parameter and running statistic of a module by the array of its name.
///
/// Parameters keep their identity, device and whether they require gradients, so an optimiser's state stays valid.
///
/// # Errors
/// If an array is missing, left over, given twice, or of another shape; the message names them.
pub fn load_named_arrays<M: Module>(module: M, arrays: &[NamedArray]) -> Result<M, String> {
    let mut by_name: HashMap<&str, &NamedArray> = HashMap::with_capacity(arrays.len());
    for array in arrays {
        if array.values.len() != array.shape.iter().product::<usize>() {
            return Err(format!(
                "the array `{}` of shape {:?} holds {} values",
                array.name,
                array.shape,
                array.values.len()
            ));
        }
        if by_name.insert(&array.name, array).is_some() {
            return Err(format!("the array `{}` is given twice", array.name));
        }
    }
    let (mut missing, mut other_shape) = (Vec::new(), Vec::new());
    for (name, shape) in named_shapes(&module) {
        match by_name.get(name.as_str()) {
            None => missing.push(name),
            Some(array) if array.shape != shape => {
                other_shape.push(format!("{name} is {:?}, expected {shape:?}", array.shape));
            }
            Some(_) => {
                by_name.remove(name.as_str());
            }
        }
    }
    // Arrays of another shape are reported as such, not as left over.
    let unused: Vec<String> = arrays
        .iter()
        .filter(|array| by_name.contains_key(array.name.as_str()))
        .map(|array| array.name.clone())
        .filter(|name| !other_shape.iter().any(|line| line.starts_with(&format!("{name} is "))))
        .collect();
    let problems: Vec<String> = [
        ("missing", missing),
        ("unused", unused),
        ("of another shape", other_shape),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what}: {}", summarise(&names)))
    .collect();
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }

    struct Writer<'a> {
        path: ModulePath,
        arrays: HashMap<&'a str, &'a NamedArray>,
    }
    impl ModuleMapper for Writer<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(array) = self.arrays.get(self.path.dotted().as_str()) else {
                return param;
            };
            param.map(|old| {
                let data = TensorData::new(array.values.clone(), old.shape());
                Tensor::from_data(data, &old.device()).set_require_grad(old.is_require_grad())
            })
        }
    }
    let arrays = arrays.iter().map(|array| (array.name.as_str(), array)).collect();
    Ok(module.map(&mut Writer {
        path: ModulePath::default(),
        arrays,
    }))
}

/// At most six names, then how many more: a message must stay readable when a whole network is missing.
pub(crate) fn summarise(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        format!("{shown} and {} more", names.len() - SHOWN)
    } else {
        shown
    }
}

/// Writes arrays as a safetensors file (F32, little-endian), atomically.
///
/// Arrays are stored in the order given and metadata sorted by key, so equal content gives equal bytes.
///
/// # Errors
/// If two arrays share a name, an array's values do not fill its shape, or the file system refuses.
pub fn write_safetensors(
    path: &Path,
    arrays: &[NamedArray],
    metadata: &BTreeMap<String, String>,
) -> Result<(), String> {
    let refuse = |why: String| format!("{} was not written: {why}", path.display());
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut offset = 0_usize;
    for array in arrays {
        if array.values.len() != array.shape.iter().product::<usize>() {
            return Err(refuse(format!(
                "`{}` holds {} values for {:?}",
                array.name,
                array.values.len(),
                array.shape
            )));
        }
        let end = offset + array.values.len() * 4;
        let entry = serde_json::json!({ "dtype": "F32", "shape": array.shape, "data_offsets": [offset, end] });
        if array.name == "__metadata__" || header.insert(array.name.clone(), entry).is_some() {
            return Err(refuse(format!("two arrays are called `{}`", array.name)));
        }
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(|error| refuse(error.to_string()))?;
    // The data starts at a multiple of 8 bytes, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for array in arrays {
            for value in &array.values {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    })
    .map_err(|error| refuse(error.to_string()))
}

/// Reads a safetensors file: its arrays as F32, sorted by name, and its metadata.
///
/// F64, F16, BF16 and integer arrays are converted.
///
/// # Errors
/// If the file cannot be read, is damaged or truncated, or holds another element type; the message names the file.
pub fn read_safetensors(path: &Path) -> Result<(Vec<NamedArray>, BTreeMap<String, String>), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{} could not be read: {error}", path.display()))?;
    let damaged = |why: String| {
        format!(
            "{} is not a whole safetensors file ({why}); copy or download it again",
            path.display()
        )
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let metadata = header
        .metadata()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut arrays = Vec::with_capacity(tensors.len());
    for (name, view) in tensors.iter() {
        let values = host_values(&view).ok_or_else(|| {
            format!(
                "{}: the array `{name}` has element type {:?}, which is not supported; save it as F32",
                path.display(),
                view.dtype()
            )
        })?;
        arrays.push(NamedArray {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            values,
        });
    }
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((arrays, metadata))
}

fn host_values(view: &TensorView<'_>) -> Option<Vec<f32>> {
    fn read<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
    }
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => read(bytes, f32::from_le_bytes),
        Dtype::F64 => read(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        Dtype::F16 => read(bytes, |chunk| f16::from_le_bytes(chunk).to_f32()),
        Dtype::BF16 => read(bytes, |chunk| bf16::from_le_bytes(chunk).to_f32()),
        Dtype::I64 => read(bytes, |chunk| i64::from_le_bytes(chunk) as f32),
        Dtype::I32 => read(bytes, |chunk| i32::from_le_bytes(chunk) as f32),
        Dtype::U8 | Dtype::BOOL => read(bytes, |[byte]: [u8; 1]| f32::from(byte)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initial;
    use crate::tensor::Device;

    #[derive(Module, Debug)]
    struct Part {
        weight: Param<Tensor<2>>,
        bias: Option<Param<Tensor<1>>>,
    }

    #[derive(Module, Debug)]
    enum Choice {
        First(Part),
    }

    #[derive(Module, Debug)]
    struct Whole {
        parts: Vec<Part>,
        choice: Choice,
    }

    fn whole(seed: u64, device: &Device) -> Whole {
        let part = |name: &str, bias: bool| Part {
            weight: initial::normal([2, 3], 1.0, seed, name, device),
            bias: bias.then(|| initial::normal([3], 1.0, seed, &format!("{name}.bias"), device)),
        };
        Whole {
            parts: vec![part("a", true), part("b", false)],
            choice: Choice::First(part("c", true)),
        }
    }

    #[test]
    fn names_follow_the_fields_and_skip_enum_variants() {
        let names: Vec<String> = named_arrays(&whole(1, &Device::default()))
            .into_iter()
            .map(|array| array.name)
            .collect();
        assert_eq!(
            names,
            [
                "parts.0.weight",
                "parts.0.bias",
                "parts.1.weight",
                "choice.weight",
                "choice.bias"
            ]
        );
    }

    #[test]
    fn a_file_gives_back_the_same_module() {
        let device = Device::default().autodiff();
        let (source, target) = (whole(1, &device), whole(2, &device));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let metadata = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        write_safetensors(&path, &named_arrays(&source), &metadata).unwrap();
        let first = std::fs::read(&path).unwrap();
        write_safetensors(&path, &named_arrays(&source), &metadata).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap(), "equal content, equal bytes");
        let (arrays, read) = read_safetensors(&path).unwrap();
        assert_eq!(read, metadata);
        let id = target.parts[0].weight.id;
        let target = load_named_arrays(target, &arrays).unwrap();
        assert_eq!(named_arrays(&target), named_arrays(&source));
        assert_eq!(target.parts[0].weight.id, id);
        assert!(target.parts[0].weight.is_require_grad());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn loading_names_what_does_not_fit() {
        let module = whole(1, &Device::default());
        let mut arrays = named_arrays(&module);
        arrays[0].name = "other".to_owned();
        arrays[2].shape = vec![3, 2];
        let message = load_named_arrays(module.clone(), &arrays).unwrap_err();
        assert!(message.contains("missing: parts.0.weight"), "{message}");
        assert!(message.contains("unused: other"), "{message}");
        assert!(
            message.contains("parts.1.weight is [3, 2], expected [2, 3]"),
            "{message}"
        );
        assert!(!message.contains("unused: other, "), "{message}");
        let mut arrays = named_arrays(&module);
        arrays.push(arrays[0].clone());
        assert!(
            load_named_arrays(module.clone(), &arrays)
                .unwrap_err()
                .contains("twice")
        );
        let mut arrays = named_arrays(&module);
        arrays[1].values.pop();
        assert!(load_named_arrays(module, &arrays).unwrap_err().contains("2 values"));
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let array = NamedArray {
            name: "x".to_owned(),
            shape: vec![4],
            values: vec![1.0; 4],
        };
        write_safetensors(&path, std::slice::from_ref(&array), &BTreeMap::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                read_safetensors(&path).unwrap_err().contains("m.safetensors"),
                "{length} bytes"
            );
        }
        assert!(
            write_safetensors(&path, &[array.clone(), array], &BTreeMap::new())
                .unwrap_err()
                .contains("two arrays")
        );
        assert!(
            read_safetensors(Path::new("/nowhere/x"))
                .unwrap_err()
                .contains("/nowhere/x")
        );
    }

    #[test]
    fn half_precision_is_widened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let half: Vec<u8> = [1.5_f32, -0.25]
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect();
        let brain: Vec<u8> = [2.0_f32, -3.0]
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect();
        let views = [
            ("half", TensorView::new(Dtype::F16, vec![2], &half).unwrap()),
            ("brain", TensorView::new(Dtype::BF16, vec![2], &brain).unwrap()),
        ];
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let (arrays, _) = read_safetensors(&path).unwrap();
        assert_eq!(arrays[0].values, [2.0, -3.0]);
        assert_eq!(arrays[1].values, [1.5, -0.25]);
    }
}
