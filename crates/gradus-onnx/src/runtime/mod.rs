//! Running ONNX embedding models: in pure Rust (rten), or by onnxruntime.

#[cfg(feature = "rten")]
mod calibration;
mod engine;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
#[cfg(feature = "rten")]
mod pure_rust;

use std::path::{Path, PathBuf};

#[cfg(feature = "rten")]
pub use calibration::calibrate;
pub use engine::Runtime;
use engine::{Axis, Engine, Port, Values};
use image::RgbImage;

use crate::protobuf;
use crate::{Layout, OnnxError, Preprocessing};

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
    engine: Box<dyn Engine>,
    path: PathBuf,
    kind: InputKind,
    /// Sizes of the input's axes where they are fixed; none where the file states no shape.
    shape: Option<Vec<Option<usize>>>,
    output: usize,
    output_name: String,
}

impl OnnxModel {
    /// Opens a file in pure Rust; `output` names the output to take where there are several.
    ///
    /// # Errors
    /// If the file is no ONNX model, takes more than one input, has several outputs and none was named, or uses operators that
    /// the runtime lacks.
    pub fn open(path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
        Self::open_with(Runtime::Rten, path, output)
    }

    /// [`OnnxModel::open`] with the runtime that is to compute it.
    ///
    /// # Errors
    /// Those of [`OnnxModel::open`], and if the runtime is not there.
    pub fn open_with(runtime: Runtime, path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
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
        Self::with_ports(runtime.open(path)?, path, output)
    }

    fn with_ports(engine: Box<dyn Engine>, path: &Path, output: Option<&str>) -> Result<Self, OnnxError> {
        let refuse = |problem: String| OnnxError::Model {
            path: path.to_owned(),
            problem,
        };
        let (inputs, outputs) = (engine.inputs(), engine.outputs());
        let [input] = inputs.as_slice() else {
            return Err(refuse(format!(
                "it takes {} inputs ({}), but an embedding model takes one: the images, or vectors. Export the part of it that \
                 embeds them alone",
                inputs.len(),
                listed(&inputs)
            )));
        };
        let Some(kind) = input.kind else {
            return Err(refuse(format!(
                "its input ({input}) is neither floating-point numbers nor pixels of eight bits (uint8)"
            )));
        };
        let chosen = match (output, outputs.as_slice()) {
            (Some(name), _) => outputs
                .iter()
                .position(|port| port.name == name)
                .ok_or_else(|| refuse(format!("it has no output `{name}`; it has {}", listed(&outputs))))?,
            (None, [_]) => 0,
            (None, []) => return Err(refuse("it has no output".to_owned())),
            (None, _) => {
                return Err(refuse(format!(
                    "it has several outputs ({}): say which one is the embedding (--output NAME)",
                    listed(&outputs)
                )));
            }
        };
        let shape = input.shape.as_ref().map(|shape| {
            shape
                .iter()
                .map(|axis| match axis {
                    Axis::Fixed(size) => Some(*size),
                    Axis::Free(_) => None,
                })
                .collect()
        });
        Ok(Self {
            path: path.to_owned(),
            kind,
            shape,
            output: chosen,
            output_name: outputs[chosen].name.clone(),
            engine,
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
                self.embed(numbers, images.len(), shape, |values| Values::Floats(values))
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
                self.embed(bytes, images.len(), shape, |values| Values::Pixels(values))
            }
        }
    }

    /// Embeds vectors `[count, width]`; returns the embeddings, row-major, and their width.
    ///
    /// # Errors
    /// As [`OnnxModel::embed_images`].
    pub fn embed_vectors(&self, vectors: &[f32], width: usize) -> Result<(Vec<f32>, usize), OnnxError> {
        let count = vectors.len() / width.max(1);
        self.embed(
            vectors.to_vec(),
            count,
            |count| vec![count, width],
            |values| Values::Floats(values),
        )
    }

    fn embed<T: Copy>(
        &self,
        mut values: Vec<T>,
        count: usize,
        shape: impl Fn(usize) -> Vec<usize>,
        fed: impl Fn(&[T]) -> Values<'_>,
    ) -> Result<(Vec<f32>, usize), OnnxError> {
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
        let (found, mut rows) = self
            .engine
            .run(&shape, fed(&values), self.output)
            .map_err(|problem| self.refuse(format!("running it up to `{}` failed: {problem}", self.output_name)))?;
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
            listed(&self.engine.outputs())
        )))
    }

    fn refuse(&self, problem: String) -> OnnxError {
        OnnxError::Model {
            path: self.path.clone(),
            problem,
        }
    }
}

/// Names and shapes of inputs or outputs.
fn listed(ports: &[Port]) -> String {
    ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ")
}
