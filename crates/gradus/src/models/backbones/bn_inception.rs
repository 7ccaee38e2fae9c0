//! BN-Inception: the network of most papers of deep metric learning between 2016 and 2021.

use gradus_kernels::{Activation, Conv2dOptions, MaxPool2dOptions, conv2d, max_pool2d};
use gradus_onnx::{Graph, Value};

use super::{Backbone, BackboneInfo, Family, NoOptions, Weights};
use crate::models::layers::{Builder, ConvNorm, ConvSpec, Initial, Mode};
use crate::tensor::{Module, Tensor};

/// Mean of a channel of the published weights' images, from 0 to 255 there.
const fn mean(value: f32) -> f32 {
    value / 255.0
}

/// Its line in the registry.
///
/// The published weights come from Caffe: their images are from 0 to 255, blue first, less (104, 117, 128). Images stay red first
/// here, as everywhere in gradus, and the network turns the channels round; `(x - mean) * 255` is said by a deviation of 1/255.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "bn-inception",
    paper: "Ioffe and Szegedy, Batch Normalization: Accelerating Deep Network Training, 2015",
    default_size: 224,
    minimum_size: 64,
    // What strides of 2 leave must be even where a convolution and a maximum stand side by side.
    size_step: 32,
    feature_width: 1024,
    normalisation: ([mean(128.0), mean(117.0), mean(104.0)], [1.0 / 255.0; 3]),
    families: &[Family::Authors],
    weights: &[Weights {
        address: "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
        family: Family::Authors,
        licence: "none stated (converted from Caffe; the code pretrained-models.pytorch is BSD-3-Clause)",
        about: "ImageNet-1k; names of pretrained-models.pytorch",
    }],
};

/// Channels of a module; no 1x1 branch and no projection where the module halves the map.
struct Shape {
    name: &'static str,
    one: usize,
    three: [usize; 2],
    double: [usize; 3],
    projected: usize,
    pool: Pool,
}

/// What the fourth branch does before its projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// Mean of 3x3 pixels, zeros around the image included.
    Average,
    /// Maximum of 3x3 pixels.
    Maximum,
    /// Maximum of 3x3 pixels of stride 2, as it is.
    Halved,
}

const fn shape(name: &'static str, channels: [usize; 7], pool: Pool) -> Shape {
    let [one, reduced3, three, reduced, double1, double2, projected] = channels;
    Shape {
        name,
        one,
        three: [reduced3, three],
        double: [reduced, double1, double2],
        projected,
        pool,
    }
}

/// The modules (figure 5 of the paper).
const MODULES: [Shape; 10] = [
    shape("3a", [64, 64, 64, 64, 96, 96, 32], Pool::Average),
    shape("3b", [64, 64, 96, 64, 96, 96, 64], Pool::Average),
    shape("3c", [0, 128, 160, 64, 96, 96, 0], Pool::Halved),
    shape("4a", [224, 64, 96, 96, 128, 128, 128], Pool::Average),
    shape("4b", [192, 96, 128, 96, 128, 128, 128], Pool::Average),
    shape("4c", [160, 128, 160, 128, 160, 160, 128], Pool::Average),
    shape("4d", [96, 128, 192, 160, 192, 192, 128], Pool::Average),
    shape("4e", [0, 128, 192, 192, 256, 256, 0], Pool::Halved),
    shape("5a", [352, 192, 320, 160, 224, 224, 128], Pool::Average),
    shape("5b", [352, 192, 320, 192, 224, 224, 128], Pool::Maximum),
];

/// Parts of a module, and what they are called in files.
const PARTS: [(&str, &str); 7] = [
    ("one", "1x1"),
    ("three_reduce", "3x3_reduce"),
    ("three", "3x3"),
    ("double_reduce", "double_3x3_reduce"),
    ("double1", "double_3x3_1"),
    ("double2", "double_3x3_2"),
    ("projection", "pool_proj"),
];

/// 1x1; 3x3; 3x3 twice; 1x1 behind a mean or maximum.
#[derive(Module, Debug)]
pub struct Inception {
    one: Option<ConvNorm>,
    three_reduce: ConvNorm,
    three: ConvNorm,
    double_reduce: ConvNorm,
    double1: ConvNorm,
    double2: ConvNorm,
    projection: Option<ConvNorm>,
    #[module(skip)]
    pool: Pool,
}

fn conv(name: &str, spec: ConvSpec, builder: &Builder<'_>) -> ConvNorm {
    // The normalisation makes the bias idle in training, but the weights have one.
    let spec = ConvSpec {
        bias: true,
        initial: Initial::FanIn,
        ..spec
    };
    builder.conv_norm(name, spec)
}

impl Inception {
    fn new(name: &str, shape: &Shape, input: usize, builder: &Builder<'_>) -> Self {
        let conv = |part: &str, spec: ConvSpec| conv(&format!("{name}.{part}"), spec, builder);
        let stride = if shape.pool == Pool::Halved { 2 } else { 1 };
        let ([reduced, three], [narrow, double1, double2]) = (shape.three, shape.double);
        Self {
            one: (shape.one > 0).then(|| conv("one", ConvSpec::new(input, shape.one, 1))),
            three_reduce: conv("three_reduce", ConvSpec::new(input, reduced, 1)),
            three: conv("three", ConvSpec::new(reduced, three, 3).stride(stride)),
            double_reduce: conv("double_reduce", ConvSpec::new(input, narrow, 1)),
            double1: conv("double1", ConvSpec::new(narrow, double1, 3)),
            double2: conv("double2", ConvSpec::new(double1, double2, 3).stride(stride)),
            projection: (shape.projected > 0).then(|| conv("projection", ConvSpec::new(input, shape.projected, 1))),
            pool: shape.pool,
        }
    }

    fn forward(&self, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let along = |layers: &[&ConvNorm], x: Tensor<4>| {
            layers
                .iter()
                .fold(x, |x, layer| layer.forward(x, mode, Activation::Relu))
        };
        let pooled = match self.pool {
            Pool::Average => mean_of_nine(x.clone()),
            Pool::Maximum => max_pool2d(
                x.clone(),
                &MaxPool2dOptions {
                    padding: [1; 2],
                    ..MaxPool2dOptions::square(3, 1)
                },
            ),
            Pool::Halved => halve(x.clone()),
        };
        let mut branches = Vec::with_capacity(4);
        if let Some(one) = &self.one {
            branches.push(along(&[one], x.clone()));
        }
        branches.push(along(&[&self.three_reduce, &self.three], x.clone()));
        branches.push(along(&[&self.double_reduce, &self.double1, &self.double2], x));
        branches.push(match &self.projection {
            Some(projection) => along(&[projection], pooled),
            None => pooled,
        });
        Tensor::cat(branches, 1)
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let along = |layers: &[&ConvNorm], graph: &mut Graph, x: Value| {
            layers
                .iter()
                .fold(x, |x, layer| layer.graph(graph, x, Activation::Relu))
        };
        let mut branches = Vec::with_capacity(4);
        if let Some(one) = &self.one {
            branches.push(along(&[one], graph, x.clone()));
        }
        branches.push(along(&[&self.three_reduce, &self.three], graph, x.clone()));
        branches.push(along(
            &[&self.double_reduce, &self.double1, &self.double2],
            graph,
            x.clone(),
        ));
        let pooled = match self.pool {
            Pool::Average => graph.average_pool(x, 3, 1, [1; 4], true),
            Pool::Maximum => graph.max_pool(x, 3, 1, [1; 4]),
            Pool::Halved => graph.max_pool_ceil(x, 3, 2, 0),
        };
        branches.push(match &self.projection {
            Some(projection) => along(&[projection], graph, pooled),
            None => pooled,
        });
        graph.concat(&branches)
    }
}

/// The mean of three by three pixels, zeros around the image included: a depthwise convolution, for which there is a kernel.
fn mean_of_nine(x: Tensor<4>) -> Tensor<4> {
    let [_, channels, ..] = x.dims();
    let ninths = Tensor::full([channels, 1, 3, 3], 1.0 / 9.0, &x.device());
    let options = Conv2dOptions {
        groups: channels,
        ..Conv2dOptions::symmetric(1, 1)
    };
    conv2d(x, ninths, None, &options)
}

/// Maximum of 3x3 pixels of stride 2; windows that reach over the edge count.
fn halve(x: Tensor<4>) -> Tensor<4> {
    let options = MaxPool2dOptions {
        ceil_mode: true,
        ..MaxPool2dOptions::square(3, 2)
    };
    max_pool2d(x, &options)
}

/// BN-Inception without its classifier. Ioffe and Szegedy, 2015.
#[derive(Module, Debug)]
pub struct BnInception {
    conv1: ConvNorm,
    conv2_reduce: ConvNorm,
    conv2: ConvNorm,
    inceptions: Vec<Inception>,
}

impl BnInception {
    /// Builds the network.
    #[must_use]
    pub fn new(_options: &NoOptions, builder: &Builder<'_>) -> Self {
        let mut input = 192;
        let inceptions = MODULES.iter().enumerate().map(|(index, shape)| {
            let module = Inception::new(&format!("inceptions.{index}"), shape, input, builder);
            let kept = if shape.projected > 0 { shape.projected } else { input };
            input = shape.one + shape.three[1] + shape.double[2] + kept;
            module
        });
        Self {
            conv1: conv("conv1", ConvSpec::new(3, 64, 7).stride(2), builder),
            conv2_reduce: conv("conv2_reduce", ConvSpec::new(64, 64, 1), builder),
            conv2: conv("conv2", ConvSpec::new(64, 192, 3), builder),
            inceptions: inceptions.collect(),
        }
    }
}

impl Backbone for BnInception {
    fn blocks(&self) -> usize {
        self.inceptions.len() + 2
    }

    fn width(&self) -> usize {
        INFO.feature_width
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let apply = |layer: &ConvNorm, x: Tensor<4>| layer.forward(x, mode, Activation::Relu);
        match index {
            0 => halve(apply(&self.conv1, x.flip([1]))),
            1 => halve(apply(&self.conv2, apply(&self.conv2_reduce, x))),
            _ => self.inceptions[index - 2].forward(x, mode),
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = graph.reorder_channels(images, &[2, 1, 0]);
        let x = self.conv1.graph(graph, x, Activation::Relu);
        let x = graph.max_pool_ceil(x, 3, 2, 0);
        let x = self.conv2_reduce.graph(graph, x, Activation::Relu);
        let x = self.conv2.graph(graph, x, Activation::Relu);
        let x = graph.max_pool_ceil(x, 3, 2, 0);
        self.inceptions.iter().fold(x, |x, module| module.graph(graph, x))
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("conv1.") {
            Some(0)
        } else if name.starts_with("conv2.") || name.starts_with("conv2_reduce.") {
            Some(1)
        } else {
            super::number_after(name, "inceptions.").map(|module| module + 2)
        }
    }

    fn file_names(&self, name: &str) -> Vec<String> {
        let parts: Vec<&str> = name.split('.').collect();
        let (layer, kind, value) = match parts.as_slice() {
            [stem, kind, value] => {
                let layer = match *stem {
                    "conv1" => "conv1_7x7_s2",
                    "conv2" => "conv2_3x3",
                    _ => "conv2_3x3_reduce",
                };
                (layer.to_owned(), *kind, *value)
            }
            ["inceptions", module, part, kind, value] => {
                let module = module.parse().ok().and_then(|module: usize| MODULES.get(module));
                let part = PARTS.iter().find(|(own, _)| own == part);
                let (Some(module), Some((_, part))) = (module, part) else {
                    return Vec::new();
                };
                (format!("inception_{}_{part}", module.name), *kind, *value)
            }
            _ => return Vec::new(),
        };
        let suffix = if kind == "norm" { "_bn" } else { "" };
        vec![format!("{layer}{suffix}.{value}")]
    }
}
