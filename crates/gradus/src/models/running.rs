//! A running statistic: a value that forward passes update and files keep, but no optimiser touches.

use std::sync::{Mutex, PoisonError};

use burn::module::{Content, ModuleDisplay, ModuleDisplayDefault};

use crate::tensor::{Device, Module, ModuleMapper, ModuleVisitor, Param, ParamId, Tensor};

/// A vector updated by forward passes in training mode, always outside autodiff.
///
/// Burn's own `RunningState` shares its value between clones and shows an update only after the next one; here a clone
/// is a copy and an update is seen at once, so that a checkpoint, an averaged model and a reloaded model are exact.
pub struct RunningStatistic {
    id: ParamId,
    value: Mutex<Tensor<1>>,
}

impl RunningStatistic {
    /// Starts from a value.
    #[must_use]
    pub fn new(value: Tensor<1>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<1>) -> Self {
        Self {
            id,
            value: Mutex::new(value.without_autodiff()),
        }
    }

    /// The present value.
    #[must_use]
    pub fn value(&self) -> Tensor<1> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value.
    pub fn replace(&self, new: Tensor<1>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = new.without_autodiff();
    }

    /// Replaces the value by `(1 - momentum) * value + momentum * observed` (PyTorch's convention of momentum).
    pub fn update(&self, observed: Tensor<1>, momentum: f64) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = value.clone().mul_scalar(1.0 - momentum);
        *value = kept + observed.without_autodiff().mul_scalar(momentum);
    }
}

impl Clone for RunningStatistic {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl std::fmt::Debug for RunningStatistic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RunningStatistic({:?})", self.value().dims())
    }
}

impl std::fmt::Display for RunningStatistic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, formatter)
    }
}

impl ModuleDisplayDefault for RunningStatistic {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.to_string()).optional()
    }
}

impl ModuleDisplay for RunningStatistic {}

impl Module for RunningStatistic {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let mapped = mapper.map_float(Param::initialized(self.id, self.value()));
        Self::with_id(self.id, mapped.val())
    }

    fn to_device(self, device: &Device) -> Self {
        Self::with_id(self.id, self.value().to_device(&device.clone().without_autodiff()))
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn collect_devices(&self, mut devices: Vec<Device>) -> Vec<Device> {
        let device = self.value().device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}
