//! The convolution kernels of the processor, checked against plain Burn on the machine at hand.

use gradus_core::random::{self, Rng};
pub use gradus_kernels::{Conv2dOptions, Implementation, conv2d, keep_large_buffers, set_implementation};

use crate::tensor::{Device, Tensor, TensorData};

/// Features of this processor that the kernels use.
#[must_use]
pub fn processor_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&'static str, bool); 0] = [];
    found
        .into_iter()
        .filter(|(_, present)| *present)
        .map(|(name, _)| name)
        .collect()
}

/// Lets the processor's kernels use `threads` threads (0: as many as `RAYON_NUM_THREADS` says, else one per core), of which the
/// calling one is the first, and tells how many there are. Possible once in a process, before anything was computed.
///
/// A thread outside the pool sleeps through every operation and is woken after it, which takes longer than the small operations
/// of a linear head; one that belongs to the pool does its share of the work.
///
/// # Errors
/// If the threads cannot be started, or were before.
pub fn use_threads(threads: usize) -> Result<usize, String> {
    let given = || {
        std::env::var("RAYON_NUM_THREADS")
            .ok()?
            .parse::<usize>()
            .ok()
            .filter(|&given| given > 0)
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let count = match threads {
        0 => given().unwrap_or_else(cores),
        threads => threads,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    // The only thread of a pool must not be one that may wait for another thread, which itself may wait for the pool.
    let pool = if count > 1 { pool.use_current_thread() } else { pool };
    pool.build_global()
        .map_err(|error| format!("{count} threads cannot be started: {error}"))?;
    Ok(rayon::current_num_threads())
}

/// The largest absolute difference between the kernels and plain Burn, forward and both gradients, over the kinds of
/// convolution that the backbones use.
///
/// # Panics
/// If the device fails to hand back a tensor.
#[must_use]
pub fn self_check(device: &Device) -> f64 {
    let kinds = [
        (
            8,
            8,
            16,
            3,
            Conv2dOptions {
                stride: [1, 1],
                padding: [[1, 1], [1, 1]],
                dilation: [1, 1],
                groups: 1,
            },
        ),
        (
            3,
            3,
            16,
            7,
            Conv2dOptions {
                stride: [2, 2],
                padding: [[3, 3], [3, 3]],
                dilation: [1, 1],
                groups: 1,
            },
        ),
        (
            16,
            1,
            16,
            3,
            Conv2dOptions {
                stride: [2, 2],
                padding: [[0, 1], [0, 1]],
                dilation: [1, 1],
                groups: 16,
            },
        ),
        (
            16,
            16,
            24,
            1,
            Conv2dOptions {
                stride: [1, 1],
                padding: [[0, 0], [0, 0]],
                dilation: [1, 1],
                groups: 1,
            },
        ),
    ];
    let device = device.clone().autodiff();
    let mut largest = 0f64;
    for (number, (channels, depth, outputs, side, options)) in kinds.into_iter().enumerate() {
        let draw = |part: u64, shape: [usize; 4]| {
            let mut stream = random::stream(0, &[number as u64, part]);
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| stream.random::<f32>() - 0.5)
                .collect();
            Tensor::<4>::from_data(TensorData::new(values, shape), &device).require_grad()
        };
        let run = |implementation| {
            set_implementation(implementation);
            let (images, weight) = (draw(0, [4, channels, 18, 17]), draw(1, [outputs, depth, side, side]));
            let output = conv2d(images.clone(), weight.clone(), None, &options);
            let gradients = (output.clone() * output.clone()).sum().backward();
            let mut values = host(output);
            for gradient in [images.grad(&gradients), weight.grad(&gradients)].into_iter().flatten() {
                values.extend(host(gradient));
            }
            values
        };
        let plain = run(Implementation::Stock);
        let own = run(Implementation::Own);
        let scale = plain
            .iter()
            .fold(1f64, |scale, value| scale.max(f64::from(value.abs())));
        for (a, b) in plain.iter().zip(&own) {
            largest = largest.max(f64::from((a - b).abs()) / scale);
        }
    }
    largest
}

fn host(tensor: Tensor<4>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a device that computed a tensor can hand it back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;

    #[test]
    fn kernels_agree_with_plain_burn() {
        let difference = self_check(&DeviceChoice::Cpu.resolve().unwrap());
        assert!(difference < 1e-5, "{difference}");
    }
}
