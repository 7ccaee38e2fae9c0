//! Running ONNX embedding models in pure Rust (rten).

use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::RgbImage;
use rten::{DataType, Dimension, Model, ModelOptions, NodeId, ValueOrView, ValueType, ValueView};
use rten_tensor::Layout as _;

use crate::protobuf;
use crate::{Calibration, Graph, Layout, OnnxError, Preprocessing, Seen};

/// The field of a model that holds its graph.
const GRAPH: u64 = 7;

/// What the input of a model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// Numbers.
    Float,
    /// Pixels of eight bits.
    Pixels,
}

/// An ONNX model with one input that is fed and one output that is an embedding.
#[derive(Debug)]
pub struct OnnxModel {
    model: Model,
    path: PathBuf,
    input: NodeId,
    kind: InputKind,
    /// Sizes of the input's axes where they are fixed; none where the file states no shape.
    shape: Option<Vec<Option<usize>>>,
    output: NodeId,
    output_name: String,
}

impl OnnxModel {
    /// Opens a file; `output` names the output to take where there are several.
    ///
    /// # Errors
    /// If the file is no ONNX model, takes more than one input, has several outputs and none was named, or uses operators that
    /// the runtime lacks.
    pub fn open(path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
        let unreadable = |error: std::io::Error| OnnxError::Unreadable {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let refuse = |problem: String| OnnxError::Model {
            path: path.to_owned(),
            problem,
        };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        if bytes.is_empty() {
            return Err(refuse("the file is empty".to_owned()));
        }
        match protobuf::fields(&bytes) {
            Err(problem) => return Err(refuse(format!("it is not an ONNX model ({problem})"))),
            Ok(fields) if !fields.contains(&GRAPH) => {
                return Err(refuse("it is not an ONNX model (it holds no graph)".to_owned()));
            }
            Ok(_) => drop(bytes),
        }
        // By path, not by content: weights in a file of their own are looked for beside the model.
        let loaded = guarded(|| ModelOptions::with_all_ops().load_file(path));
        let model = loaded
            .and_then(|loaded| loaded.map_err(|error| error.to_string()))
            .map_err(|problem| {
                refuse(format!(
                    "it is not an ONNX model that can be run here ({problem}). If it is one, run it with onnxruntime and give its vectors \
                     (--embeddings)"
                ))
            })?;
        Self::with_ports(model, path, output)
    }

    fn with_ports(model: Model, path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
        let refuse = |problem: String| OnnxError::Model {
            path: path.to_owned(),
            problem,
        };
        let inputs = described(&model, model.input_ids());
        let &[input] = model.input_ids() else {
            return Err(refuse(format!(
                "it takes {} inputs ({inputs}), but an embedding model takes one: the images, or vectors. Export the part of it that \
                 embeds them alone",
                model.input_ids().len()
            )));
        };
        let kind = match model.node_info(input).and_then(|info| info.dtype()) {
            Some(ValueType::Tensor(DataType::UInt8)) => InputKind::Pixels,
            Some(ValueType::Tensor(DataType::Float)) | None => InputKind::Float,
            Some(_) => {
                return Err(refuse(format!(
                    "its input ({inputs}) is neither floating-point numbers nor pixels of eight bits (uint8)"
                )));
            }
        };
        let outputs = described(&model, model.output_ids());
        let named = |id: &NodeId| {
            model
                .node_info(*id)
                .and_then(|info| info.name())
                .unwrap_or_default()
                .to_owned()
        };
        let chosen = match (output, model.output_ids()) {
            (Some(name), ids) => ids
                .iter()
                .find(|id| named(id) == name)
                .copied()
                .ok_or_else(|| refuse(format!("it has no output `{name}`; it has {outputs}")))?,
            (None, &[only]) => only,
            (None, []) => return Err(refuse("it has no output".to_owned())),
            (None, _) => {
                return Err(refuse(format!(
                    "it has several outputs ({outputs}): say which one is the embedding (--output NAME)"
                )));
            }
        };
        let shape = model.node_info(input).and_then(|info| info.shape()).map(|shape| {
            shape
                .into_iter()
                .map(|dimension| match dimension {
                    Dimension::Fixed(size) => Some(size),
                    Dimension::Symbolic(_) => None,
                })
                .collect()
        });
        Ok(Self {
            output_name: named(&chosen),
            model,
            path: path.to_owned(),
            input,
            kind,
            shape,
            output: chosen,
        })
    }

    /// What the input holds.
    #[must_use]
    pub fn kind(&self) -> InputKind {
        self.kind
    }

    /// How many items the model takes at a time, if the file fixes it.
    #[must_use]
    pub fn fixed_batch(&self) -> Option<usize> {
        self.shape.as_ref()?.first().copied().flatten()
    }

    /// Whether the input is a batch of images: four axes.
    #[must_use]
    pub fn takes_images(&self) -> bool {
        self.shape.as_ref().is_none_or(|shape| shape.len() == 4)
    }

    /// Whether the input is a batch of vectors: two axes.
    #[must_use]
    pub fn takes_vectors(&self) -> bool {
        self.shape.as_ref().is_none_or(|shape| shape.len() == 2)
    }

    /// Embeds images that were resized and cut ([`Preprocessing::pixels`]) and have one size; returns the embeddings, row-major,
    /// and their width.
    ///
    /// # Errors
    /// If the model takes other sizes, fails, or gives anything but one vector for each image.
    pub fn embed_images(
        &self,
        images: &[RgbImage],
        preprocessing: &Preprocessing,
    ) -> Result<(Vec<f32>, usize), OnnxError> {
        let Some(first) = images.first() else {
            return Ok((Vec::new(), 0));
        };
        let (width, height) = first.dimensions();
        if let Some(other) = images.iter().find(|image| image.dimensions() != (width, height)) {
            return Err(self.refuse(format!(
                "images of one batch have one size, but there are {width} x {height} and {} x {} pixels: resize them (`resize` or \
                 `center_crop` in the preprocessing), or embed one at a time (--batch-size 1)",
                other.width(),
                other.height()
            )));
        }
        let (width, height) = (width as usize, height as usize);
        let shape = |count: usize| match preprocessing.layout {
            Layout::Nchw => vec![count, 3, height, width],
            Layout::Nhwc => vec![count, height, width, 3],
        };
        match self.kind {
            InputKind::Float => {
                let mut numbers = Vec::with_capacity(images.len() * 3 * width * height);
                for image in images {
                    preprocessing.numbers(image, &mut numbers);
                }
                self.embed(numbers, images.len(), shape)
            }
            InputKind::Pixels => {
                let plain = Preprocessing {
                    resize: preprocessing.resize,
                    center_crop: preprocessing.center_crop,
                    filter: preprocessing.filter,
                    ..Preprocessing::none()
                };
                if plain != *preprocessing {
                    return Err(self.refuse(
                        "it takes pixels of eight bits, channels last, but the preprocessing scales, normalises or reorders them: `mean` must \
                         be 0, `std` 1, `scale` 1, `layout` nhwc and `colour` rgb"
                            .to_owned(),
                    ));
                }
                let bytes: Vec<u8> = images.iter().flat_map(|image| image.as_raw().iter().copied()).collect();
                self.embed(bytes, images.len(), shape)
            }
        }
    }

    /// Embeds vectors `[count, width]`; returns the embeddings, row-major, and their width.
    ///
    /// # Errors
    /// As [`OnnxModel::embed_images`].
    pub fn embed_vectors(&self, vectors: &[f32], width: usize) -> Result<(Vec<f32>, usize), OnnxError> {
        let count = vectors.len() / width.max(1);
        self.embed(vectors.to_vec(), count, |count| vec![count, width])
    }

    fn embed<T: Copy>(
        &self,
        mut values: Vec<T>,
        count: usize,
        shape: impl Fn(usize) -> Vec<usize>,
    ) -> Result<(Vec<f32>, usize), OnnxError>
    where
        for<'a> ValueView<'a>: FromSlice<'a, T>,
    {
        if count == 0 {
            return Ok((Vec::new(), 0));
        }
        let each = values.len() / count;
        let fixed = self.fixed_batch().unwrap_or(count);
        if count > fixed {
            return Err(self.refuse(format!("it takes {fixed} items at a time, but {count} were given")));
        }
        // A file of a fixed batch gets the last item again and again; those rows are dropped.
        for _ in count..fixed {
            values.extend_from_within((count - 1) * each..count * each);
        }
        let shape = shape(fixed);
        self.check_shape(&shape)?;
        let view = ValueView::from_slice(&shape, &values).map_err(|problem| self.refuse(problem))?;
        let results = guarded(|| {
            self.model
                .run(vec![(self.input, ValueOrView::from(view))], &[self.output], None)
        })
        .and_then(|result| result.map_err(|error| error.to_string()))
        .map_err(|problem| self.refuse(format!("running it failed: {problem}")))?;
        let (found, mut rows) = floats(results).ok_or_else(|| {
            self.refuse(format!(
                "its output `{}` is not floating-point numbers",
                self.output_name
            ))
        })?;
        let width = self.width_of(&found, fixed)?;
        rows.truncate(count * width);
        Ok((rows, width))
    }

    fn check_shape(&self, given: &[usize]) -> Result<(), OnnxError> {
        let Some(expected) = &self.shape else {
            return Ok(());
        };
        let fits = expected.len() == given.len()
            && expected
                .iter()
                .zip(given)
                .all(|(expected, given)| expected.is_none_or(|expected| expected == *given));
        if fits {
            return Ok(());
        }
        let words: Vec<String> = expected
            .iter()
            .map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string()))
            .collect();
        Err(self.refuse(format!(
            "its input has the shape [{}], but {given:?} was made: correct the preprocessing (`resize`, `center_crop`, `layout`)",
            words.join(", ")
        )))
    }

    /// Width of the embedding in an output of a shape.
    fn width_of(&self, shape: &[usize], count: usize) -> Result<usize, OnnxError> {
        let spatial_ones = shape.len() > 2 && shape[2..].iter().all(|&size| size == 1);
        if shape.first() == Some(&count) && (shape.len() == 2 || spatial_ones) {
            return Ok(shape[1]);
        }
        Err(self.refuse(format!(
            "its output `{}` has the shape {shape:?} for {count} images, but an embedding is [{count}, width]: name another output \
             (--output; it has {}), or export the model with its pooling",
            self.output_name,
            described(&self.model, self.model.output_ids())
        )))
    }

    fn refuse(&self, problem: String) -> OnnxError {
        OnnxError::Model {
            path: self.path.clone(),
            problem,
        }
    }
}

/// A view of values in a shape, for the element types that are fed.
trait FromSlice<'a, T>: Sized {
    fn from_slice(shape: &[usize], values: &'a [T]) -> Result<Self, String>;
}

impl<'a> FromSlice<'a, f32> for ValueView<'a> {
    fn from_slice(shape: &[usize], values: &'a [f32]) -> Result<Self, String> {
        Self::from_shape(shape, values).map_err(|error| error.to_string())
    }
}

impl<'a> FromSlice<'a, u8> for ValueView<'a> {
    fn from_slice(shape: &[usize], values: &'a [u8]) -> Result<Self, String> {
        Self::from_shape(shape, values).map_err(|error| error.to_string())
    }
}

/// The runtime must not bring the program down on a hostile file.
fn guarded<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "the runtime failed".to_owned())
    })
}

/// Shape and numbers of the one output.
fn floats(results: Vec<rten::Value>) -> Option<(Vec<usize>, Vec<f32>)> {
    let tensor = results.into_iter().next()?.into_tensor::<f32>()?;
    let shape = tensor.shape().to_vec();
    Some((shape, tensor.into_data()))
}

/// Names and shapes of inputs or outputs.
fn described(model: &Model, ids: &[NodeId]) -> String {
    let one = |id: &NodeId| {
        let info = model.node_info(*id);
        let name = info.as_ref().and_then(|info| info.name()).unwrap_or("?").to_owned();
        let shape = info.and_then(|info| info.shape()).map(|shape| {
            let sizes: Vec<String> = shape
                .into_iter()
                .map(|dimension| match dimension {
                    Dimension::Fixed(size) => size.to_string(),
                    Dimension::Symbolic(name) => name,
                })
                .collect();
            format!(" [{}]", sizes.join(", "))
        });
        format!("`{name}`{}", shape.unwrap_or_default())
    };
    ids.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the activations of a graph are over batches of input numbers: the mean over batches of the least and greatest value, so that
/// one strange image does not take the levels from all others, and the mean of every channel.
///
/// # Shapes
/// Every batch is `[count, ..]` in the shape of the graph's input.
///
/// # Errors
/// If the graph cannot be run.
pub fn calibrate(
    graph: &Graph,
    batches: impl IntoIterator<Item = Result<(Vec<f32>, Vec<usize>), OnnxError>>,
) -> Result<Calibration, OnnxError> {
    let refuse = |problem: String| OnnxError::Model {
        path: PathBuf::from("the graph to calibrate"),
        problem,
    };
    let bytes = graph.encode(crate::Batch::Dynamic, &[])?;
    // Without optimisation every activation is computed under its name.
    let model = ModelOptions::with_all_ops()
        .enable_optimization(false)
        .load(bytes)
        .map_err(|error| refuse(error.to_string()))?;
    let names = graph.activations();
    let ids = names
        .iter()
        .map(|name| model.node_id(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(error.to_string()))?;
    let input = model.input_ids()[0];
    let mut sums = Calibration::new();
    let mut count = 0.0_f32;
    for batch in batches {
        count += 1.0;
        let (numbers, shape) = batch?;
        let view = ValueView::from_slice(&shape, &numbers).map_err(refuse)?;
        // The input is fed, so it is not among what can be asked for.
        let asked: Vec<NodeId> = ids.iter().copied().filter(|id| *id != input).collect();
        let results = model
            .run(vec![(input, ValueOrView::from(view))], &asked, None)
            .map_err(|error| refuse(error.to_string()))?;
        let mut results = results.into_iter();
        for (name, id) in names.iter().zip(&ids) {
            let one = if *id == input {
                seen(&shape, &numbers)
            } else {
                let value = results.next().and_then(|value| value.into_tensor::<f32>());
                let value = value.ok_or_else(|| refuse(format!("`{name}` has no numbers")))?;
                let shape = value.shape().to_vec();
                seen(&shape, &value.into_data())
            };
            match sums.entry(name.clone()) {
                Entry::Vacant(place) => {
                    place.insert(one);
                }
                Entry::Occupied(mut sum) => {
                    let sum = sum.get_mut();
                    sum.range = [sum.range[0] + one.range[0], sum.range[1] + one.range[1]];
                    for (sum, mean) in sum.means.iter_mut().zip(&one.means) {
                        *sum += mean;
                    }
                }
            }
        }
    }
    if sums.len() != names.len() {
        return Err(refuse("no image to calibrate with".to_owned()));
    }
    for sum in sums.values_mut() {
        for number in sum.range.iter_mut().chain(&mut sum.means) {
            *number /= count;
        }
    }
    Ok(sums)
}

/// Range and channel means of an activation `[batch, channels, height, width]` or `[.., channels]`.
fn seen(shape: &[usize], numbers: &[f32]) -> Seen {
    let (channels, inner) = match *shape {
        [_, channels, height, width] => (channels, height * width),
        _ => (shape.last().copied().unwrap_or(1), 1),
    };
    let mut sums = vec![0.0_f64; channels];
    for (place, block) in numbers.chunks_exact(inner.max(1)).enumerate() {
        sums[place % channels] += block.iter().map(|&number| f64::from(number)).sum::<f64>();
    }
    let each = (numbers.len() / channels.max(1)).max(1) as f64;
    Seen {
        range: range_of(numbers),
        means: sums.into_iter().map(|sum| (sum / each) as f32).collect(),
    }
}

fn range_of(numbers: &[f32]) -> [f32; 2] {
    numbers
        .iter()
        .fold([f32::INFINITY, f32::NEG_INFINITY], |[least, most], &number| {
            [least.min(number), most.max(number)]
        })
}
