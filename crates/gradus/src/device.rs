//! The only file that names a backend: which device computes.

use std::fmt;
use std::str::FromStr;

use gradus_kernels::{Implementation, set_implementation};

pub use crate::tensor::Device;

/// Where to compute, as written by the user: `auto`, `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:0`.
///
/// ```
/// use gradus::device::DeviceChoice;
/// assert_eq!("cuda:1".parse::<DeviceChoice>(), Ok(DeviceChoice::Cuda(1)));
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU a backend was compiled in for, else the processor.
    #[default]
    Auto,
    /// The processor, with Burn's Flex backend and gradus' kernels.
    Cpu,
    /// An NVIDIA GPU, by number (cargo feature `cuda`).
    Cuda(usize),
    /// A GPU through wgpu, by number (cargo feature `wgpu`).
    Wgpu(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::Wgpu(number) => write!(formatter, "wgpu:{number}"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || format!("unknown device `{text}`: expected auto, cpu, cuda, cuda:<n>, wgpu or wgpu:<n>");
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse::<usize>().map_err(|_| refused())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", number) => Ok(Self::Cuda(number.unwrap_or(0))),
            ("wgpu", number) => Ok(Self::Wgpu(number.unwrap_or(0))),
            _ => Err(refused()),
        }
    }
}

impl DeviceChoice {
    /// The device, without autodiff.
    ///
    /// # Errors
    /// If the asked backend was not compiled in, with the cargo feature that brings it.
    pub fn resolve(self) -> Result<Device, String> {
        match self {
            Self::Auto => Ok(automatic()),
            Self::Cpu => Ok(processor()),
            Self::Cuda(number) => cuda(number),
            Self::Wgpu(number) => wgpu(number),
        }
    }
}

/// Which code runs convolutions and normalisation on the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// gradus' own.
    #[default]
    Own,
    /// Plain Burn, the reference to compare with.
    Stock,
}

/// Section `[device]`: where to compute, and with which kernels; `device = "cpu"` says only where.
///
/// ```
/// use gradus::device::{DeviceChoice, DeviceConfig, Kernels};
/// #[derive(serde::Deserialize)]
/// struct File { device: DeviceConfig }
/// let short: File = toml::from_str("device = 'cpu'")?;
/// assert_eq!(short.device, DeviceConfig { on: DeviceChoice::Cpu, kernels: Kernels::Own });
/// let long: File = toml::from_str("[device]\nkernels = 'stock'")?;
/// assert_eq!(long.device.kernels, Kernels::Stock);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceConfig {
    /// Where (default `auto`).
    pub on: DeviceChoice,
    /// With which kernels (default `own`); a choice for the whole process.
    pub kernels: Kernels,
}

impl<'de> serde::Deserialize<'de> for DeviceConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Section {
            on: DeviceChoice,
            kernels: Kernels,
        }
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = DeviceConfig;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a device such as \"cpu\", or a section with `on` and `kernels`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DeviceConfig, E> {
                let on = text.parse().map_err(E::custom)?;
                Ok(DeviceConfig {
                    on,
                    ..DeviceConfig::default()
                })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<DeviceConfig, A::Error> {
                use serde::Deserialize;
                let Section { on, kernels } = Section::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(DeviceConfig { on, kernels })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl DeviceConfig {
    /// Chooses the kernels and gives the device, without autodiff.
    ///
    /// ```
    /// use gradus::device::{DeviceChoice, DeviceConfig, Kernels};
    /// use gradus_kernels::{Implementation, implementation};
    /// let stock = DeviceConfig { on: DeviceChoice::Cpu, kernels: Kernels::Stock };
    /// stock.resolve().unwrap();
    /// assert_eq!(implementation(), Implementation::Stock);
    /// DeviceConfig::default().resolve().unwrap();
    /// assert_eq!(implementation(), Implementation::Own);
    /// ```
    ///
    /// # Errors
    /// Those of [`DeviceChoice::resolve`].
    pub fn resolve(self) -> Result<Device, String> {
        set_implementation(match self.kernels {
            Kernels::Own => Implementation::Own,
            Kernels::Stock => Implementation::Stock,
        });
        self.on.resolve()
    }
}

impl DeviceConfig {
    /// The devices of several workers, without autodiff: GPUs from the given number on, or the processor for all of them.
    ///
    /// ```
    /// use gradus::device::DeviceConfig;
    /// assert_eq!(DeviceConfig::default().workers(3).unwrap().len(), 3);
    /// ```
    ///
    /// # Errors
    /// Those of [`DeviceChoice::resolve`].
    pub fn workers(self, count: usize) -> Result<Vec<Device>, String> {
        let first = match self.on {
            DeviceChoice::Auto if cfg!(feature = "cuda") => DeviceChoice::Cuda(0),
            on => on,
        };
        let worker = |number: usize| match first {
            DeviceChoice::Cuda(first) => DeviceChoice::Cuda(first + number),
            DeviceChoice::Wgpu(first) => DeviceChoice::Wgpu(first + number),
            same => same,
        };
        (0..count).map(|number| worker(number).resolve()).collect()
    }
}

/// Makes double precision the default of a device; possible once in a process, before the first tensor.
///
/// # Errors
/// If a tensor was made before, or the device has no double precision.
pub fn use_double_precision(device: &mut Device) -> Result<(), String> {
    device
        .configure(burn::tensor::FloatDType::F64)
        .map_err(|error| format!("the device cannot compute in double precision: {error:?}"))
}

/// The backends this binary was built with, for `gradus doctor`.
#[must_use]
pub fn compiled_backends() -> Vec<&'static str> {
    let mut names = vec!["cpu (flex)"];
    if cfg!(feature = "cuda") {
        names.push("cuda");
    }
    if cfg!(feature = "wgpu") {
        names.push("wgpu");
    }
    names
}

#[allow(
    clippy::disallowed_methods,
    reason = "this file is the one place that names backends"
)]
fn processor() -> Device {
    Device::flex()
}

#[cfg(feature = "cuda")]
fn automatic() -> Device {
    Device::cuda(0)
}

#[cfg(all(feature = "wgpu", not(feature = "cuda")))]
fn automatic() -> Device {
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}

#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
fn automatic() -> Device {
    processor()
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, String> {
    Ok(Device::cuda(number))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err("this gradus was built without CUDA: build it with `--features cuda`, or use `--device cpu`".to_owned())
}

#[cfg(feature = "wgpu")]
fn wgpu(number: usize) -> Result<Device, String> {
    Ok(Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(number)))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: usize) -> Result<Device, String> {
    Err("this gradus was built without wgpu: build it with `--features wgpu`, or use `--device cpu`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_reads_back_what_it_prints() {
        for choice in [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::Cuda(2),
            DeviceChoice::Wgpu(1),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "cpu:1", "cuda:x", "metal"] {
            assert!(
                wrong.parse::<DeviceChoice>().unwrap_err().contains("expected auto"),
                "{wrong}"
            );
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_backend_that_was_not_built_is_refused_with_its_feature() {
        assert!(DeviceChoice::Cuda(0).resolve().unwrap_err().contains("--features cuda"));
    }
}
