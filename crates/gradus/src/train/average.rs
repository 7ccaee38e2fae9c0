//! Exponential moving average of parameters (Polyak and Juditsky, 1992; as a teacher: Tarvainen and Valpola, 2017).

use std::collections::BTreeMap;

use gradus_kernels::moving_average;

use crate::state::ModulePath;
use crate::tensor::{Module, ModuleMapper, ModuleVisitor, Param, Tensor};

/// a = a + (1 - decay) · (p - a) for every float parameter and running statistic but those whose dotted path `stays` names:
/// they never changed, so their average is what they are.
///
/// # Panics
/// If the two modules do not have the same parameters: they are always clones of one.
#[must_use]
pub fn update<M: Module>(average: M, current: &M, decay: f64, stays: impl Fn(&str) -> bool) -> M {
    let mut collect = Collect {
        path: ModulePath::default(),
        values: BTreeMap::new(),
        stays: &stays,
    };
    current.visit(&mut collect);
    let mut blend = Blend {
        path: ModulePath::default(),
        values: collect.values,
        decay,
        stays: &stays,
    };
    average.map(&mut blend)
}

/// The decay after `updates` earlier updates: `min(decay, (1 + updates) / (10 + updates))`, so that the start, which knows
/// nothing, is soon forgotten.
#[must_use]
pub fn warmed_up(decay: f64, updates: usize) -> f64 {
    let updates = updates as f64;
    decay.min((1.0 + updates) / (10.0 + updates))
}

struct Collect<'a> {
    path: ModulePath,
    values: BTreeMap<String, Tensor<1>>,
    stays: &'a dyn Fn(&str) -> bool,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        if (self.stays)(&path) {
            return;
        }
        let value = param.val().without_autodiff();
        let count = value.dims().iter().product::<usize>();
        self.values.insert(path, value.reshape([count]));
    }
}

struct Blend<'a> {
    path: ModulePath,
    values: BTreeMap<String, Tensor<1>>,
    decay: f64,
    stays: &'a dyn Fn(&str) -> bool,
}

impl ModuleMapper for Blend<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        if (self.stays)(&path) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let current = self
            .values
            .remove(&path)
            .expect("the average is a clone of the averaged module");
        let shape = tensor.dims();
        let count = shape.iter().product::<usize>();
        let blended = moving_average(tensor.without_autodiff().reshape([count]), current, 1.0 - self.decay);
        Param::from_mapped_value(id, blended.reshape(shape), mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::warmed_up;

    #[test]
    fn decay_rises_to_what_was_asked_for() {
        assert!((warmed_up(0.99, 0) - 0.1).abs() < 1e-12);
        assert!((warmed_up(0.99, 90) - 0.91).abs() < 1e-12);
        assert!((warmed_up(0.99, 10_000) - 0.99).abs() < 1e-12);
        assert!(warmed_up(0.0, 7).abs() < 1e-12);
    }
}
