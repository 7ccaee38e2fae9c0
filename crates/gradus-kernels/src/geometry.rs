//! Sizes of one convolution, checked once.

use crate::options::Conv2dOptions;

/// Sizes of a convolution; pairs are `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) input: [usize; 2],
    pub(crate) outputs: usize,
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Zeros before the first row and column; those behind the last follow from the output size.
    pub(crate) before: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) groups: usize,
}

impl Geometry {
    /// Checks the shapes against the options.
    ///
    /// # Panics
    /// If they do not fit together; the message names what was expected and found.
    pub(crate) fn new(images: [usize; 4], weight: [usize; 4], options: &Conv2dOptions) -> Self {
        let [n, c, height, width] = images;
        let [outputs, per_group, kernel_height, kernel_width] = weight;
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            groups,
        } = *options;
        assert!(
            stride.iter().chain(&dilation).all(|step| *step > 0) && groups > 0,
            "conv2d: stride, dilation and groups must be at least 1, found {options:?}"
        );
        assert!(
            c == per_group * groups && outputs % groups == 0,
            "conv2d: images of shape {images:?} and a weight of shape {weight:?} do not fit {groups} groups: expected \
             the weight's second size times the groups to be the number of channels, and the groups to divide the \
             number of outputs"
        );
        let mut output = [0; 2];
        for (axis, (size, kernel)) in [(height, kernel_height), (width, kernel_width)].into_iter().enumerate() {
            let padded = size + padding[axis][0] + padding[axis][1];
            let reach = dilation[axis] * kernel.saturating_sub(1) + 1;
            assert!(
                kernel > 0 && reach <= padded,
                "conv2d: a kernel that spans {reach} pixels does not fit a padded image of {padded} pixels (images \
                 {images:?}, weight {weight:?}, {options:?})"
            );
            output[axis] = (padded - reach) / stride[axis] + 1;
        }
        Self {
            images: n,
            channels: c,
            input: [height, width],
            outputs,
            output,
            kernel: [kernel_height, kernel_width],
            stride,
            before: [padding[0][0], padding[1][0]],
            dilation,
            groups,
        }
    }

    /// Pixels of one input channel.
    pub(crate) fn input_pixels(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Pixels of one output channel.
    pub(crate) fn output_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Taps of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input channels of one group.
    pub(crate) fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// Output channels of one group.
    pub(crate) fn group_outputs(&self) -> usize {
        self.outputs / self.groups
    }

    /// Shape of the output.
    pub(crate) fn output_shape(&self) -> [usize; 4] {
        [self.images, self.outputs, self.output[0], self.output[1]]
    }

    /// Shape of the input.
    pub(crate) fn input_shape(&self) -> [usize; 4] {
        [self.images, self.channels, self.input[0], self.input[1]]
    }

    /// Shape of the weight.
    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.outputs, self.group_channels(), self.kernel[0], self.kernel[1]]
    }

    /// Whether each input channel has its own kernels. A single channel is left to the matrix product.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.channels > 1
    }

    /// Whether the output is a matrix product of the weight and the image as it lies in memory.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.before == [0; 2] && self.output == self.input
    }
}
