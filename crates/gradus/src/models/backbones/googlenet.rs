//! GoogLeNet with batch normalisation, as torchvision has it.

use gradus_kernels::{Activation, MaxPool2dOptions, max_pool2d};
use gradus_onnx::{Graph, Value};

use super::{Backbone, BackboneInfo, Family, NoOptions, Weights};
use crate::models::layers::{Builder, ConvNorm, ConvSpec, Initial, Mode};
use crate::tensor::{Module, Tensor};

/// Its line in the registry.
///
/// torchvision turns images that were normalised with ImageNet's numbers to `(x - 0.5) / 0.5` inside the network
/// (`transform_input`); here they are normalised so from the start, which is the same.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "googlenet",
    paper: "Szegedy et al., Going Deeper with Convolutions, 2014",
    default_size: 224,
    minimum_size: 32,
    size_step: 1,
    feature_width: 1024,
    normalisation: ([0.5; 3], [0.5; 3]),
    families: &[Family::Torchvision],
    weights: &[Weights {
        address: "https://download.pytorch.org/models/googlenet-1378be20.pth",
        family: Family::Torchvision,
        licence: "BSD-3-Clause (torchvision)",
        about: "ImageNet-1k, ported from the paper's; give images (x - 0.5) / 0.5",
    }],
};

/// Channels of an inception module: 1x1; 3x3 with its reduction before it; the second 3x3 (5x5 in the paper) with its
/// reduction; 1x1 behind the maximum.
struct Shape {
    name: &'static str,
    one: usize,
    three: [usize; 2],
    five: [usize; 2],
    pool: usize,
    /// Side of the windows of the maximum behind the module, of stride 2, if there is one.
    halved: Option<usize>,
}

const fn shape(name: &'static str, channels: [usize; 6], halved: Option<usize>) -> Shape {
    let [one, reduced3, three, reduced5, five, pool] = channels;
    Shape {
        name,
        one,
        three: [reduced3, three],
        five: [reduced5, five],
        pool,
        halved,
    }
}

/// The inception modules (table 1 of the paper).
const MODULES: [Shape; 9] = [
    shape("inception3a", [64, 96, 128, 16, 32, 32], None),
    shape("inception3b", [128, 128, 192, 32, 96, 64], Some(3)),
    shape("inception4a", [192, 96, 208, 16, 48, 64], None),
    shape("inception4b", [160, 112, 224, 24, 64, 64], None),
    shape("inception4c", [128, 128, 256, 24, 64, 64], None),
    shape("inception4d", [112, 144, 288, 32, 64, 64], None),
    shape("inception4e", [256, 160, 320, 32, 128, 128], Some(2)),
    shape("inception5a", [256, 160, 320, 32, 128, 128], None),
    shape("inception5b", [384, 192, 384, 48, 128, 128], None),
];

/// torchvision's, a hundred times PyTorch's default.
const EPSILON: f64 = 1e-3;

/// Four branches side by side.
#[derive(Module, Debug)]
pub struct Inception {
    branch1: ConvNorm,
    branch2: Vec<ConvNorm>,
    branch3: Vec<ConvNorm>,
    branch4: ConvNorm,
    halved: Option<usize>,
}

fn conv(name: &str, spec: ConvSpec, builder: &Builder<'_>) -> ConvNorm {
    let spec = ConvSpec {
        initial: Initial::Deviation(0.01),
        ..spec
    };
    builder.conv_norm_with(name, spec, EPSILON)
}

impl Inception {
    fn new(name: &str, shape: &Shape, input: usize, builder: &Builder<'_>) -> Self {
        let conv = |part: &str, spec: ConvSpec| conv(&format!("{name}.{part}"), spec, builder);
        // The second of the larger kernels has three by three pixels in torchvision, too, by an old mistake that its weights rest on.
        let pair = |part: &str, [reduced, output]: [usize; 2]| {
            vec![
                conv(&format!("{part}.0"), ConvSpec::new(input, reduced, 1)),
                conv(&format!("{part}.1"), ConvSpec::new(reduced, output, 3)),
            ]
        };
        Self {
            branch1: conv("branch1", ConvSpec::new(input, shape.one, 1)),
            branch2: pair("branch2", shape.three),
            branch3: pair("branch3", shape.five),
            branch4: conv("branch4", ConvSpec::new(input, shape.pool, 1)),
            halved: shape.halved,
        }
    }

    fn forward(&self, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let along = |layers: &[ConvNorm]| {
            let start = x.clone();
            layers
                .iter()
                .fold(start, |x, layer| layer.forward(x, mode, Activation::Relu))
        };
        let pooled = max_pool2d(
            x.clone(),
            &MaxPool2dOptions {
                padding: [1; 2],
                ..MaxPool2dOptions::square(3, 1)
            },
        );
        let branches = vec![
            self.branch1.forward(x.clone(), mode, Activation::Relu),
            along(&self.branch2),
            along(&self.branch3),
            self.branch4.forward(pooled, mode, Activation::Relu),
        ];
        let joined = Tensor::cat(branches, 1);
        match self.halved {
            Some(window) => halve(joined, window),
            None => joined,
        }
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let one = self.branch1.graph(graph, x.clone(), Activation::Relu);
        let [three, five] = [&self.branch2, &self.branch3].map(|layers| {
            let start = x.clone();
            layers
                .iter()
                .fold(start, |x, layer| layer.graph(graph, x, Activation::Relu))
        });
        let pooled = graph.max_pool(x, 3, 1, [1; 4]);
        let pooled = self.branch4.graph(graph, pooled, Activation::Relu);
        let joined = graph.concat(&[one, three, five, pooled]);
        match self.halved {
            Some(window) => graph.max_pool_ceil(joined, window, 2, 0),
            None => joined,
        }
    }
}

/// Maximum of stride 2; windows that reach over the edge count.
fn halve(x: Tensor<4>, window: usize) -> Tensor<4> {
    let options = MaxPool2dOptions {
        ceil_mode: true,
        ..MaxPool2dOptions::square(window, 2)
    };
    max_pool2d(x, &options)
}

/// GoogLeNet without its classifiers. Szegedy et al., 2014.
#[derive(Module, Debug)]
pub struct Googlenet {
    conv1: ConvNorm,
    conv2: ConvNorm,
    conv3: ConvNorm,
    inceptions: Vec<Inception>,
}

impl Googlenet {
    /// Builds the network.
    #[must_use]
    pub fn new(_options: &NoOptions, builder: &Builder<'_>) -> Self {
        let mut input = 192;
        let inceptions = MODULES.iter().map(|shape| {
            let module = Inception::new(shape.name, shape, input, builder);
            input = shape.one + shape.three[1] + shape.five[1] + shape.pool;
            module
        });
        Self {
            conv1: conv("conv1", ConvSpec::new(3, 64, 7).stride(2), builder),
            conv2: conv("conv2", ConvSpec::new(64, 64, 1), builder),
            conv3: conv("conv3", ConvSpec::new(64, 192, 3), builder),
            inceptions: inceptions.collect(),
        }
    }
}

impl Backbone for Googlenet {
    fn blocks(&self) -> usize {
        self.inceptions.len() + 2
    }

    fn width(&self) -> usize {
        INFO.feature_width
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let apply = |layer: &ConvNorm, x: Tensor<4>| layer.forward(x, mode, Activation::Relu);
        match index {
            0 => halve(apply(&self.conv1, x), 3),
            1 => halve(apply(&self.conv3, apply(&self.conv2, x)), 3),
            _ => self.inceptions[index - 2].forward(x, mode),
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = self.conv1.graph(graph, images, Activation::Relu);
        let x = graph.max_pool_ceil(x, 3, 2, 0);
        let x = self.conv2.graph(graph, x, Activation::Relu);
        let x = self.conv3.graph(graph, x, Activation::Relu);
        let x = graph.max_pool_ceil(x, 3, 2, 0);
        self.inceptions.iter().fold(x, |x, module| module.graph(graph, x))
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("conv1.") {
            Some(0)
        } else if name.starts_with("conv2.") || name.starts_with("conv3.") {
            Some(1)
        } else {
            super::number_after(name, "inceptions.").map(|module| module + 2)
        }
    }

    fn file_names(&self, name: &str) -> Vec<String> {
        let name = name.replace(".norm.", ".bn.");
        let Some(module) = super::number_after(&name, "inceptions.").and_then(|module| MODULES.get(module)) else {
            return vec![name];
        };
        let rest = name.splitn(3, '.').nth(2).unwrap_or_default();
        // Behind the maximum, which is the first of its branch.
        let rest = rest.replace("branch4.", "branch4.1.");
        vec![format!("{}.{rest}", module.name)]
    }

    // The classifiers inside the network, which train it and are then dropped.
    fn leaves_out(&self, name: &str) -> bool {
        name.starts_with("aux1.") || name.starts_with("aux2.")
    }
}
