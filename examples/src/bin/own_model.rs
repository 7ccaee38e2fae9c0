//! A Burn model of your own, trained with multi-similarity loss on what a miner chooses.

#![allow(clippy::print_stdout)]

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, Relu};
use gradus::batch::{Comparison, ItemSet};
use gradus::losses::LossConfig;
use gradus::numerics::normalize;
use gradus::tensor::{Device, Tensor, TensorData};
use gradus::train::gradient::ParameterGradients;
use gradus::train::optimizer::{Clipping, Optimizer, UpdateRule};
use gradus_core::miners::{MinerConfig, MiningInput};
use gradus_core::relations::Labels;
use gradus_examples::clusters;

#[derive(Module, Debug)]
struct Network {
    first: Linear,
    relu: Relu,
    second: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(32, 64).init(device),
            relu: Relu::new(),
            second: LinearConfig::new(64, 16).init(device),
        }
    }

    /// Vectors `[batch, 32]` to unit embeddings `[batch, 16]`.
    fn forward(&self, vectors: Tensor<2>) -> Tensor<2> {
        normalize(self.second.forward(self.relu.forward(self.first.forward(vectors))))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let (values, classes) = clusters(8, 8, 32, 1.2);
    let vectors = Tensor::<2>::from_data(TensorData::new(values, [64, 32]), &device);
    let labels = Labels::from(classes.clone());

    let loss = LossConfig::by_name("multi-similarity")?.init(16, 8, 1, &device);
    let miner = MinerConfig::by_name("multi-similarity")?;
    let mut network = Network::new(&device);
    let mut optimizer = Optimizer::new(UpdateRule::default(), Clipping::None);
    for step in 0..30 {
        let embeddings = network.forward(vectors.clone());
        let rows = embeddings.clone().into_data().convert::<f64>().try_to_vec::<f64>()?;
        let mined = miner.mine(&MiningInput::batch(rows, &labels, 16, step)?)?;
        let batch = ItemSet::new(embeddings, classes.clone());
        let value = loss.forward(&Comparison::within(batch).with_mined(mined));
        if step % 10 == 0 || step == 29 {
            println!("step {step}: loss {:.4}", value.clone().into_scalar::<f32>());
        }
        let gradients = ParameterGradients::collect(&network, &mut value.backward());
        network = optimizer.step(network, gradients, None, &|_| 3e-3);
    }
    Ok(())
}
