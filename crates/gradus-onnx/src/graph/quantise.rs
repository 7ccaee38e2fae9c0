//! Eight-bit weights and activations: static quantisation in the form of pairs of `QuantizeLinear` and `DequantizeLinear`.
//!
//! Weights of convolutions and linear layers of the trunk have one scale per output channel and no zero point; activations
//! one scale and zero point each, from the range that calibration saw; biases are 32-bit integers, and make good what rounded
//! weights add to a channel on average (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
//! ICCV 2019): with a few weights to a channel, as in depthwise convolutions, errors do not cancel. Pooling, head and
//! normalisation to unit length stay in single precision. A runtime that knows the pairs computes in integers; one that does
//! not computes the same numbers in single precision.

use std::collections::{HashMap, HashSet};

use super::{Attribute, Graph, Node, Numbers};

/// Weights go to 63 either side, not 127: processors without dot-product instructions of eight bits (AVX2) add two products of 255 and a
/// weight in 16 bits, and larger weights saturate there.
const MOST_LEVEL: f32 = 63.0;
/// Operators that take quantised activations.
const QUANTISED: [&str; 7] = ["Conv", "MatMul", "Add", "Concat", "MaxPool", "Pad", "GlobalAveragePool"];
/// Operators whose output has the range of their input.
const SAME_RANGE: [&str; 2] = ["MaxPool", "Pad"];

/// What calibration saw of an activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The least and the greatest value.
    pub range: [f32; 2],
    /// The mean of every channel.
    pub means: Vec<f32>,
}

/// What calibration saw of every activation that is quantised, by its name.
pub type Calibration = HashMap<String, Seen>;

impl Graph {
    /// Names of the activations whose ranges [`Graph::quantised`] wants, in the order they are computed.
    #[must_use]
    pub fn activations(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for node in self.quantised_nodes() {
            for input in node.inputs.iter().take(self.activation_inputs(node)) {
                if self.constant_of(input).is_none() && seen.insert(input.clone()) {
                    names.push(input.clone());
                }
            }
        }
        names
    }

    fn quantised_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes[self.trunk.clone()]
            .iter()
            .filter(|node| self.is_quantised(node))
    }

    fn is_quantised(&self, node: &Node) -> bool {
        match node.operator {
            // Products of two activations (attention) stay in single precision.
            "MatMul" => self.constant_of(&node.inputs[1]).is_some(),
            // A constant or a bias behind a product is added in single precision.
            "Add" => node.inputs.iter().all(|input| self.constant_of(input).is_none()),
            operator => QUANTISED.contains(&operator),
        }
    }

    fn activation_inputs(&self, node: &Node) -> usize {
        match node.operator {
            "Add" | "Concat" => node.inputs.len(),
            _ => 1,
        }
    }

    /// The same graph with the trunk in eight bits.
    ///
    /// # Panics
    /// If an activation is missing from the calibration.
    #[must_use]
    pub fn quantised(&self, calibration: &Calibration) -> Self {
        let mut target = self.clone();
        target.nodes = Vec::with_capacity(3 * self.nodes.len());
        let mut scales: HashMap<String, f32> = HashMap::new();
        let mut restored: HashMap<String, String> = HashMap::new();
        let wanted: HashSet<String> = self.activations().into_iter().collect();
        for (input, _) in self.inputs.iter().filter(|(input, _)| wanted.contains(&input.name)) {
            target.round(&input.name, calibration[&input.name].range, &mut scales, &mut restored);
        }
        // Of activations whose range is that of another: the name of that one.
        let mut same: HashMap<&str, &str> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let mut node = node.clone();
            if self.trunk.contains(&index) && self.is_quantised(&node) {
                let count = self.activation_inputs(&node);
                for input in node.inputs.iter_mut().take(count) {
                    if let Some(name) = restored.get(input) {
                        name.clone_into(input);
                    }
                }
                if matches!(node.operator, "Conv" | "MatMul") {
                    let name = &self.nodes[index].inputs[0];
                    let scale = scales[name];
                    let means = calibration.get(name).map_or(&[][..], |seen| &seen.means);
                    target.round_weights(&mut node, scale, means);
                }
            }
            let output = node.output.clone();
            target.nodes.push(node);
            let original = &self.nodes[index];
            if SAME_RANGE.contains(&original.operator) {
                let source = original.inputs[0].as_str();
                same.insert(&original.output, same.get(source).copied().unwrap_or(source));
            }
            if wanted.contains(&output) {
                let source = same.get(output.as_str()).copied().unwrap_or(&output);
                let seen = calibration.get(source).or_else(|| calibration.get(&output));
                let seen = seen.expect("calibration saw every activation");
                target.round(&output, seen.range, &mut scales, &mut restored);
            }
        }
        let used: HashSet<&String> = target.nodes.iter().flat_map(|node| &node.inputs).collect();
        let constants = std::mem::take(&mut target.constants);
        let constants = constants
            .into_iter()
            .filter(|constant| used.contains(&constant.name))
            .collect();
        drop(used);
        target.constants = constants;
        target
    }

    /// Rounds an activation to 256 levels from the least to the greatest value, 0 among them.
    fn round(
        &mut self,
        name: &str,
        [least, most]: [f32; 2],
        scales: &mut HashMap<String, f32>,
        restored: &mut HashMap<String, String>,
    ) {
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = ((most - least) / 255.0).max(1e-8);
        let zero = (-least / scale).round().clamp(0.0, 255.0) as u8;
        let scale_name = self.floats("activation_scale", &[], &[scale]);
        let zero_name = self.constant("zero_point", &[], Numbers::Unsigned(vec![zero]));
        let levels = self.apply("QuantizeLinear", &[name, &scale_name, &zero_name], &[], &[]);
        let back = self.apply("DequantizeLinear", &[&levels.name, &scale_name, &zero_name], &[], &[]);
        scales.insert(name.to_owned(), scale);
        restored.insert(name.to_owned(), back.name);
    }

    /// Stores the weights of a convolution or linear layer in eight bits and its bias in 32; `means` are those of its inputs.
    fn round_weights(&mut self, node: &mut Node, input_scale: f32, means: &[f32]) {
        let weight = self
            .constant_of(&node.inputs[1])
            .expect("weights are constants")
            .clone();
        let Numbers::Float(numbers) = &weight.numbers else {
            return;
        };
        // Output channels are the first axis of a convolution's weights, the last of a product's.
        let is_conv = node.operator == "Conv";
        let axis = if is_conv { 0 } else { weight.shape.len() - 1 };
        let channels = weight.shape[axis];
        let each = numbers.len() / channels;
        let channel_of = |index: usize| if is_conv { index / each } else { index % channels };
        let bias = node.inputs.get(2).and_then(|bias| self.constant_of(bias)).cloned();
        let mut biases = match bias.as_ref().map(|bias| &bias.numbers) {
            Some(Numbers::Float(numbers)) => numbers.clone(),
            _ => vec![0.0; channels],
        };
        let mut scales = vec![0.0_f32; channels];
        for (index, number) in numbers.iter().enumerate() {
            let scale = &mut scales[channel_of(index)];
            *scale = scale.max(number.abs() / MOST_LEVEL);
        }
        for (scale, bias) in scales.iter_mut().zip(&biases) {
            // A bias is a whole number of products of both scales, of at most 31 bits.
            *scale = scale.max(bias.abs() / (input_scale * (1 << 30) as f32)).max(1e-12);
        }
        let rounded: Vec<i8> = numbers
            .iter()
            .enumerate()
            .map(|(index, number)| {
                (number / scales[channel_of(index)])
                    .round_ties_even()
                    .clamp(-MOST_LEVEL, MOST_LEVEL) as i8
            })
            .collect();
        if is_conv && !means.is_empty() {
            // Inputs of a channel of outputs: those of its group, each with the positions of the kernel.
            let (inputs, positions) = (weight.shape[1], each / weight.shape[1]);
            let together = channels / (means.len() / inputs);
            for (index, (number, level)) in numbers.iter().zip(&rounded).enumerate() {
                let channel = index / each;
                let input = channel / together * inputs + index % each / positions;
                biases[channel] += (number - f32::from(*level) * scales[channel]) * means[input];
            }
        }
        let attributes = [("axis", Attribute::Integer(axis as i64))];
        let levels = self.constant("weight_levels", &weight.shape, Numbers::Signed(rounded));
        let scale = self.floats("weight_scale", &[channels], &scales);
        let zero = self.constant("weight_zero_point", &[channels], Numbers::Signed(vec![0; channels]));
        node.inputs[1] = self
            .apply("DequantizeLinear", &[&levels, &scale, &zero], &attributes, &[])
            .name;
        if bias.is_some() {
            let steps: Vec<f32> = scales.iter().map(|scale| scale * input_scale).collect();
            let rounded: Vec<i32> = biases
                .iter()
                .zip(&steps)
                .map(|(bias, step)| (f64::from(*bias) / f64::from(*step)).round() as i32)
                .collect();
            let levels = self.constant("bias_levels", &[channels], Numbers::Integer(rounded));
            let scale = self.floats("bias_scale", &[channels], &steps);
            let zero = self.constant("bias_zero_point", &[channels], Numbers::Integer(vec![0; channels]));
            let attributes = [("axis", Attribute::Integer(0))];
            node.inputs[2] = self
                .apply("DequantizeLinear", &[&levels, &scale, &zero], &attributes, &[])
                .name;
        }
    }
}
