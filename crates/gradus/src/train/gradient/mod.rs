//! Gradients of parameters by name, so that those of several backward passes can be added up, and the ways to them that need
//! several: in parts, block by block, on several devices.

pub(super) mod cache;
pub(super) mod checkpointing;
pub(super) mod workers;

use std::collections::BTreeMap;

use gradus_kernels::squared_sum;

use crate::state::ModulePath;
use crate::tensor::{Device, Gradients, Module, ModuleVisitor, Param, Tensor};

/// The gradient of each parameter of a module that has one, flattened, under the parameter's dotted path.
#[derive(Debug, Default)]
pub struct ParameterGradients {
    by_path: BTreeMap<String, Tensor<1>>,
}

impl ParameterGradients {
    /// Takes the gradients of a module's parameters out of a backward pass.
    #[must_use]
    pub fn collect<M: Module>(module: &M, gradients: &mut Gradients) -> Self {
        struct Collector<'a> {
            gradients: &'a mut Gradients,
            path: ModulePath,
            found: BTreeMap<String, Tensor<1>>,
        }
        impl ModuleVisitor for Collector<'_> {
            fn enter_module(&mut self, name: &str, container_type: &str) {
                self.path.enter(name, container_type);
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.exit();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if !param.is_require_grad() {
                    return;
                }
                if let Some(gradient) = param.val().grad_remove(self.gradients) {
                    let count = gradient.dims().iter().product::<usize>();
                    self.found.insert(self.path.dotted(), gradient.reshape([count]));
                }
            }
        }
        let mut collector = Collector {
            gradients,
            path: ModulePath::default(),
            found: BTreeMap::new(),
        };
        module.visit(&mut collector);
        Self {
            by_path: collector.found,
        }
    }

    /// The same of a part of a module that is called `name` in it, brought to another device.
    #[must_use]
    pub fn collect_at<M: Module>(part: &M, name: &str, gradients: &mut Gradients, device: &Device) -> Self {
        let found = Self::collect(part, gradients).by_path.into_iter();
        Self {
            by_path: found
                .map(|(path, gradient)| (format!("{name}.{path}"), gradient.to_device(device)))
                .collect(),
        }
    }

    /// The sum of both, parameter by parameter.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (path, gradient) in other.by_path {
            let sum = match self.by_path.remove(&path) {
                Some(present) => present + gradient,
                None => gradient,
            };
            self.by_path.insert(path, sum);
        }
        self
    }

    /// All gradients times a number.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for gradient in self.by_path.values_mut() {
            *gradient = gradient.clone().mul_scalar(factor);
        }
        self
    }

    /// The paths of the parameters that have a gradient here.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }

    /// The gradient `[entries]` of a parameter, which is then gone from here.
    pub fn take(&mut self, path: &str) -> Option<Tensor<1>> {
        self.by_path.remove(path)
    }

    /// The sum of squares `[1]` of the gradients of the parameters that `counts` says yes to; `None` when there are none.
    #[must_use]
    pub fn squared_norm(&self, counts: &dyn Fn(&str) -> bool) -> Option<Tensor<1>> {
        let counted = self.by_path.iter().filter(|(path, _)| counts(path));
        let squares = counted.map(|(_, gradient)| squared_sum(gradient.clone()));
        squares.reduce(|sum, square| sum + square)
    }
}
