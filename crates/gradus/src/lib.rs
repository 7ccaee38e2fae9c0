//! gradus: deep metric learning that keeps the degrees inside a class.
//!
//! Data flows one way: images → [`models`] (trunk, pooling, head) → unit-norm embeddings → a base loss of [`losses`]
//! plus the intra-class ranking of [`intra_class`] → [`train`] (loop, checkpoints) → evaluation in [`gradus_core`].
//!
//! | module | what |
//! |---|---|
//! | [`models`] | backbones, pooling, embedding head, pretrained weights |
//! | [`losses`] | supervised metric losses, one file each, and their registry |
//! | [`embedding_augmentation`] | samples, points or classes generated in embedding space for the base loss |
//! | [`auxiliary_losses`] | losses beside the base loss, dropped after training |
//! | [`intra_class`] | the method: gate, generators, projector, ranking loss, anchor loss |
//! | [`config`] | the typed configuration, presets and overrides |
//! | [`train`] | the training loop, optimiser, schedule, checkpoints, run folder |
//! | [`study`] | several arms with several seeds on several data sets, and what their differences are worth |
//! | [`batch`] | embeddings with labels, a batch against a reference set, mined pairs and triplets |
//! | [`distances`] | distances between all rows on tensors |
//! | [`numerics`] | log-sum-exp, safe square root, normalisation |
//! | [`initial`] | seeded initial parameters |
//! | [`state`] | named host copies of parameters, for files |
//! | [`device`] | the only file that names a backend |
//! | [`kernels`] | the processor's kernels, checked against plain Burn |

pub mod auxiliary_losses;
pub mod batch;
pub mod config;
pub mod device;
pub mod distances;
pub mod embedding_augmentation;
pub mod initial;
pub mod intra_class;
pub mod kernels;
pub mod losses;
pub mod models;
pub mod numerics;
pub mod state;
pub mod study;
pub mod tensor;
pub mod train;

pub use gradus_core as core;
