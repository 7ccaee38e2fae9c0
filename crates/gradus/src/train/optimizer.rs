//! AdamW and SGD over named parameters, with a learning rate per parameter and state that is saved by name.
//!
//! Burn's optimisers key their state by a random parameter id, clip gradients tensor by tensor and take group rates only
//! from their own schedulers. Exact resume from a file one can read, clipping by the norm of all gradients together, and
//! rates for trunk, head and criterion under one schedule need names instead, and little code.

use std::collections::BTreeMap;

use gradus_kernels::{AdamWStep, adamw_update};
use serde::{Deserialize, Serialize};

use super::gradient::ParameterGradients;
use crate::state::{ModulePath, NamedArray};
use crate::tensor::{Device, Module, ModuleMapper, Param, Tensor, TensorData};

/// Which update rule, with its own settings; section `[optimizer.adamw]` or `[optimizer.sgd]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateRule {
    /// AdamW (Loshchilov and Hutter, 2019).
    Adamw(AdamW),
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
}

impl Default for UpdateRule {
    fn default() -> Self {
        Self::Adamw(AdamW::default())
    }
}

/// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).
///
/// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g²; p = p (1 - rate·decay) - rate · m̂ / (sqrt(v̂) + epsilon)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdamW {
    /// Decay of the mean of gradients (default 0.9, the paper's).
    pub beta1: f64,
    /// Decay of the mean of squared gradients (default 0.999, the paper's).
    pub beta2: f64,
    /// Added to the denominator (default 1e-8, PyTorch's).
    pub epsilon: f64,
    /// Decoupled weight decay (default 1e-4, the released code of arXiv 2304.10941).
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
        }
    }
}

/// Stochastic gradient descent: v = momentum·v + (g + decay·p); p = p - rate·v (PyTorch's convention).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sgd {
    /// Momentum (default 0.9).
    pub momentum: f64,
    /// Nesterov's look-ahead (default off).
    pub nesterov: bool,
    /// L2 penalty added to the gradient (default 1e-4).
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
        }
    }
}

/// How gradients are bounded before the update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clipping {
    /// Not at all.
    None,
    /// Each entry to `[-value, value]`.
    Value(f64),
    /// All gradients together to this Euclidean norm.
    Norm(f64),
}

/// An optimiser with the state of each parameter by name.
#[derive(Debug)]
pub struct Optimizer {
    rule: UpdateRule,
    clipping: Clipping,
    /// Per parameter: number of updates, first buffer (mean or velocity), second buffer (AdamW only).
    state: BTreeMap<String, ParameterState>,
}

#[derive(Debug, Clone)]
struct ParameterState {
    updates: u64,
    first: Tensor<1>,
    second: Option<Tensor<1>>,
}

impl Optimizer {
    /// An optimiser without state.
    #[must_use]
    pub fn new(rule: UpdateRule, clipping: Clipping) -> Self {
        Self {
            rule,
            clipping,
            state: BTreeMap::new(),
        }
    }

    /// One update of every parameter of `module` that has a gradient and a positive learning rate.
    ///
    /// `rate` gives the learning rate of a dotted parameter path, 0 leaving it untouched (its state too); `scale` is what
    /// [`norm_scale`](Self::norm_scale) gave.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: ParameterGradients,
        scale: Option<Tensor<1>>,
        rate: &dyn Fn(&str) -> f64,
    ) -> M {
        let mut update = Update {
            optimizer: self,
            gradients,
            rate,
            scale,
            path: ModulePath::default(),
        };
        module.map(&mut update)
    }

    /// The factor `[1]` all gradients are multiplied with so that their joint norm stays below the limit; `None` when
    /// clipping is not by norm. `rate` says which parameters take part, as in [`step`](Self::step).
    #[must_use]
    pub fn norm_scale(&self, gradients: &ParameterGradients, rate: &dyn Fn(&str) -> f64) -> Option<Tensor<1>> {
        let Clipping::Norm(limit) = self.clipping else {
            return None;
        };
        let norm = gradients.squared_norm(&|path| rate(path) > 0.0)?.sqrt();
        Some((norm.add_scalar(1e-6).recip().mul_scalar(limit)).clamp_max(1.0))
    }

    /// The state by name: `<path>#first`, `<path>#second`, `<path>#updates`.
    ///
    /// # Panics
    /// If the device fails to hand back a tensor.
    #[must_use]
    pub fn to_arrays(&self) -> Vec<NamedArray> {
        let mut arrays = Vec::with_capacity(self.state.len() * 3);
        for (path, state) in &self.state {
            // A count below 2^24 is exact in f32; the file then holds one type only.
            arrays.push(NamedArray {
                name: format!("{path}#updates"),
                shape: vec![1],
                values: vec![state.updates as f32],
            });
            arrays.push(buffer(format!("{path}#first"), &state.first));
            if let Some(second) = &state.second {
                arrays.push(buffer(format!("{path}#second"), second));
            }
        }
        arrays
    }

    /// Restores what [`to_arrays`](Self::to_arrays) gave.
    ///
    /// # Errors
    /// If an entry does not belong to this kind of optimiser or is incomplete.
    pub fn load_arrays(&mut self, arrays: &[NamedArray], device: &Device) -> Result<(), String> {
        let mut parts: BTreeMap<&str, [Option<&NamedArray>; 3]> = BTreeMap::new();
        for array in arrays {
            let (path, kind) = array
                .name
                .rsplit_once('#')
                .ok_or_else(|| format!("optimiser state `{}` is not of the form <parameter>#<part>", array.name))?;
            let slot = match kind {
                "updates" => 0,
                "first" => 1,
                "second" => 2,
                other => return Err(format!("optimiser state `{path}` has an unknown part `{other}`")),
            };
            parts.entry(path).or_default()[slot] = Some(array);
        }
        let two_buffers = matches!(self.rule, UpdateRule::Adamw(_));
        self.state.clear();
        for (path, [updates, first, second]) in parts {
            let (Some(updates), Some(first)) = (updates, first) else {
                return Err(format!("optimiser state of `{path}` is incomplete"));
            };
            if two_buffers != second.is_some() {
                return Err(format!("optimiser state of `{path}` was saved by another update rule"));
            }
            let count = updates.values.first().copied().unwrap_or_default();
            self.state.insert(
                path.to_owned(),
                ParameterState {
                    updates: count as u64,
                    first: restore(first, device),
                    second: second.map(|array| restore(array, device)),
                },
            );
        }
        Ok(())
    }
}

fn buffer(name: String, tensor: &Tensor<1>) -> NamedArray {
    let values = host(tensor.clone());
    NamedArray {
        name,
        shape: vec![values.len()],
        values,
    }
}

fn host(tensor: Tensor<1>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a device that computed a tensor can hand it back")
}

fn restore(array: &NamedArray, device: &Device) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(array.values.clone(), [array.values.len()]),
        &device.clone().without_autodiff(),
    )
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    gradients: ParameterGradients,
    rate: &'a dyn Fn(&str) -> f64,
    scale: Option<Tensor<1>>,
    path: ModulePath,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let path = self.path.dotted();
        let rate = (self.rate)(&path);
        let Some(gradient) = self.gradients.take(&path).filter(|_| rate > 0.0) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let count = shape.iter().product::<usize>();
        let (limit, factor) = match self.optimizer.clipping {
            Clipping::None => (f64::INFINITY, None),
            Clipping::Value(limit) => (limit, None),
            Clipping::Norm(_) => (f64::INFINITY, self.scale.clone()),
        };
        let value: Tensor<1> = tensor.without_autodiff().reshape([count]);
        let previous = self.optimizer.state.remove(&path);
        let (value, state) = match &self.optimizer.rule {
            UpdateRule::Adamw(rule) => adamw(rule, rate, [value, gradient], (limit, factor), previous),
            UpdateRule::Sgd(rule) => {
                let gradient = if limit.is_finite() {
                    gradient.clamp(-limit, limit)
                } else {
                    gradient
                };
                let gradient = match factor {
                    Some(factor) => gradient * factor,
                    None => gradient,
                };
                sgd(rule, rate, value, gradient, previous)
            }
        };
        self.optimizer.state.insert(path, state);
        let updated = value.reshape(shape).autodiff().require_grad();
        Param::from_mapped_value(id, updated, mapper)
    }
}

/// One step in one pass over the parameter; the gradient is bounded by `limit`, then multiplied with `factor`.
fn adamw(
    rule: &AdamW,
    rate: f64,
    [value, gradient]: [Tensor<1>; 2],
    (limit, factor): (f64, Option<Tensor<1>>),
    previous: Option<ParameterState>,
) -> (Tensor<1>, ParameterState) {
    let (updates, first, second) = match previous {
        Some(ParameterState {
            updates,
            first,
            second: Some(second),
        }) => (updates + 1, first, second),
        _ => (1, gradient.zeros_like(), gradient.zeros_like()),
    };
    let power = i32::try_from(updates).unwrap_or(i32::MAX);
    let numbers = AdamWStep {
        first_decay: rule.beta1,
        second_decay: rule.beta2,
        second_correction: 1.0 - rule.beta2.powi(power),
        epsilon: rule.epsilon,
        shrinkage: 1.0 - rate * rule.weight_decay,
        pace: rate / (1.0 - rule.beta1.powi(power)),
        limit,
    };
    let factor = factor.unwrap_or_else(|| Tensor::ones([1], (&value.device(), value.dtype())));
    let [value, first, second] = adamw_update([value, gradient, first, second], factor, numbers);
    (
        value,
        ParameterState {
            updates,
            first,
            second: Some(second),
        },
    )
}

fn sgd(
    rule: &Sgd,
    rate: f64,
    value: Tensor<1>,
    gradient: Tensor<1>,
    previous: Option<ParameterState>,
) -> (Tensor<1>, ParameterState) {
    let gradient = gradient + value.clone().mul_scalar(rule.weight_decay);
    let (updates, velocity) = match previous {
        Some(state) => (
            state.updates + 1,
            state.first.mul_scalar(rule.momentum) + gradient.clone(),
        ),
        None => (1, gradient.clone()),
    };
    let direction = if rule.nesterov {
        gradient + velocity.clone().mul_scalar(rule.momentum)
    } else {
        velocity.clone()
    };
    (
        value - direction.mul_scalar(rate),
        ParameterState {
            updates,
            first: velocity,
            second: None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;

    #[derive(Module, Debug)]
    struct Pair {
        a: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
    }

    const A: [f32; 4] = [0.5, -1.0, 2.0, 0.25];
    const B: [f32; 2] = [1.0, -3.0];

    fn device() -> Device {
        DeviceChoice::Cpu.resolve().unwrap().autodiff()
    }

    fn pair() -> Pair {
        let device = device();
        let a = Tensor::from_data(TensorData::new(A.to_vec(), [2, 2]), &device);
        let b = Tensor::from_data(TensorData::new(B.to_vec(), [2]), &device);
        Pair {
            a: Param::from_tensor(a),
            b: Param::from_tensor(b),
        }
    }

    /// loss = sum a² + sum 3 b, so that the gradients are 2 a and 3.
    fn gradients(pair: &Pair) -> ParameterGradients {
        let loss = (pair.a.val() * pair.a.val()).sum() + pair.b.val().sum().mul_scalar(3.0);
        ParameterGradients::collect(pair, &mut loss.backward())
    }

    fn values(pair: &Pair) -> Vec<f64> {
        let mut all: Vec<f32> = pair.a.val().try_into_vec_as::<f32>().unwrap();
        all.extend(pair.b.val().try_into_vec_as::<f32>().unwrap());
        all.into_iter().map(f64::from).collect()
    }

    fn close(found: &[f64], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 2e-6, "{found} instead of {expected}");
        }
    }

    /// The update rule written out for single numbers.
    fn naive_adamw(steps: usize, rate: f64, rule: &AdamW) -> Vec<f64> {
        let mut all = Vec::new();
        for (index, &start) in A.iter().chain(&B).enumerate() {
            let (mut p, mut m, mut v) = (f64::from(start), 0.0, 0.0);
            for t in 1..=steps {
                let g = if index < 4 { 2.0 * p } else { 3.0 };
                m = rule.beta1 * m + (1.0 - rule.beta1) * g;
                v = rule.beta2 * v + (1.0 - rule.beta2) * g * g;
                let (mh, vh) = (
                    m / (1.0 - rule.beta1.powi(t as i32)),
                    v / (1.0 - rule.beta2.powi(t as i32)),
                );
                p = p * (1.0 - rate * rule.weight_decay) - rate * mh / (vh.sqrt() + rule.epsilon);
            }
            all.push(p);
        }
        all
    }

    fn run(optimizer: &mut Optimizer, mut pair: Pair, steps: usize, rate: f64) -> Pair {
        for _ in 0..steps {
            let gradients = gradients(&pair);
            let scale = optimizer.norm_scale(&gradients, &|_| rate);
            pair = optimizer.step(pair, gradients, scale, &|_| rate);
        }
        pair
    }

    #[test]
    fn adamw_follows_the_rule_written_out() {
        let rule = AdamW {
            weight_decay: 0.1,
            ..AdamW::default()
        };
        let mut optimizer = Optimizer::new(UpdateRule::Adamw(rule.clone()), Clipping::None);
        let pair = run(&mut optimizer, pair(), 5, 0.05);
        close(&values(&pair), &naive_adamw(5, 0.05, &rule));
    }

    #[test]
    fn sgd_follows_the_rule_written_out() {
        for nesterov in [false, true] {
            let rule = Sgd {
                momentum: 0.8,
                nesterov,
                weight_decay: 0.01,
            };
            let mut optimizer = Optimizer::new(UpdateRule::Sgd(rule), Clipping::None);
            let pair = run(&mut optimizer, pair(), 4, 0.02);
            let expected: Vec<f64> = A
                .iter()
                .chain(&B)
                .enumerate()
                .map(|(index, &start)| {
                    let (mut p, mut velocity) = (f64::from(start), 0.0);
                    for _ in 0..4 {
                        let g = (if index < 4 { 2.0 * p } else { 3.0 }) + 0.01 * p;
                        velocity = 0.8 * velocity + g;
                        p -= 0.02 * if nesterov { g + 0.8 * velocity } else { velocity };
                    }
                    p
                })
                .collect();
            close(&values(&pair), &expected);
        }
    }

    #[test]
    fn clipping_bounds_entries_or_the_joint_norm() {
        let plain = Sgd {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        };
        let step = |clipping| {
            let mut optimizer = Optimizer::new(UpdateRule::Sgd(plain.clone()), clipping);
            let before = values(&pair());
            let after = values(&run(&mut optimizer, pair(), 1, 1.0));
            before
                .iter()
                .zip(after)
                .map(|(before, after)| before - after)
                .collect::<Vec<f64>>()
        };
        close(&step(Clipping::Value(1.5)), &[1.0, -1.5, 1.5, 0.5, 1.5, 1.5]);
        let gradient = [1.0, -2.0, 4.0, 0.5, 3.0, 3.0];
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let expected: Vec<f64> = gradient.iter().map(|g| g * 2.0 / (norm + 1e-6)).collect();
        close(&step(Clipping::Norm(2.0)), &expected);
        close(&step(Clipping::Norm(100.0)), &gradient);
    }

    #[test]
    fn a_rate_of_zero_leaves_the_parameter_and_its_state_alone() {
        let mut optimizer = Optimizer::new(UpdateRule::default(), Clipping::None);
        let before = pair();
        let rate = |path: &str| if path == "b" { 0.1 } else { 0.0 };
        let after = optimizer.step(before.clone(), gradients(&before), None, &rate);
        assert_eq!(values(&before)[..4], values(&after)[..4]);
        assert_ne!(values(&before)[4..], values(&after)[4..]);
        assert!(optimizer.to_arrays().iter().all(|array| array.name.starts_with("b#")));
    }

    #[test]
    fn saved_and_restored_equals_uninterrupted_bit_for_bit() {
        let mut whole = Optimizer::new(UpdateRule::default(), Clipping::Value(10.0));
        let expected = values(&run(&mut whole, pair(), 6, 0.01));
        let mut first = Optimizer::new(UpdateRule::default(), Clipping::Value(10.0));
        let half = run(&mut first, pair(), 3, 0.01);
        let mut second = Optimizer::new(UpdateRule::default(), Clipping::Value(10.0));
        second.load_arrays(&first.to_arrays(), &device()).unwrap();
        assert_eq!(values(&run(&mut second, half, 3, 0.01)), expected);
        let mut other = Optimizer::new(UpdateRule::Sgd(Sgd::default()), Clipping::None);
        assert!(
            other
                .load_arrays(&first.to_arrays(), &device())
                .unwrap_err()
                .contains("another update rule")
        );
    }
}
