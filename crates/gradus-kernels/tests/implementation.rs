//! The process-wide switch; alone in its process, since other tests would see it.

use burn::tensor::{Device, Tensor};
use gradus_kernels::{
    Activation, Conv2dOptions, Implementation, batch_norm, conv2d, implementation, set_implementation,
};

#[test]
fn both_implementations_give_the_same_results() {
    assert_eq!(implementation(), Implementation::Own);
    let device = Device::flex().autodiff();
    let run = |chosen| {
        set_implementation(chosen);
        assert_eq!(implementation(), chosen);
        let x = Tensor::<1>::arange_from(&device).require_grad();
        let weight = Tensor::<4>::ones([2, 1, 3, 3], &device).require_grad();
        let options = Conv2dOptions {
            groups: 2,
            ..Conv2dOptions::symmetric(1, 1)
        };
        let y = conv2d(x.clone().reshape([2, 2, 4, 4]), weight.clone(), None, &options);
        let one = || Tensor::<1>::ones([2], &device);
        let (y, mean, variance) = batch_norm(y, one(), one(), 1e-5, Activation::Relu6);
        assert!(!mean.is_autodiff() && !variance.is_autodiff());
        let gradients = y.clone().square().sum().backward();
        let gradient = weight.grad(&gradients).expect("tracked");
        (
            y.into_data(),
            mean.into_data(),
            variance.into_data(),
            gradient.into_data(),
        )
    };
    let (own, stock) = (run(Implementation::Own), run(Implementation::Stock));
    set_implementation(Implementation::Own);
    let tolerance = burn::tensor::Tolerance::<f32>::default();
    own.0.assert_approx_eq::<f32>(&stock.0, tolerance);
    own.1.assert_approx_eq::<f32>(&stock.1, tolerance);
    own.2.assert_approx_eq::<f32>(&stock.2, tolerance);
    own.3
        .assert_approx_eq::<f32>(&stock.3, burn::tensor::Tolerance::absolute(1e-2));
}

/// Some tensor that is not constant.
trait ArangeFrom {
    fn arange_from(device: &Device) -> Self;
}

impl ArangeFrom for Tensor<1> {
    fn arange_from(device: &Device) -> Self {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 / 16.0 - 2.0).collect();
        Tensor::from_data(values.as_slice(), device)
    }
}
