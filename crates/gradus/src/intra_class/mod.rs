//! The method: samples inside a class are generated (or taken) at graded intensities and *ranked*, so that the
//! embedding keeps a stronger change farther away than a weaker one.
//!
//! Liu, Liu, Lang, Liu, Zhou, Li: "Deep Metric Learning Assisted by Intra-variance in a Semi-supervised View of
//! Learning", arXiv 2304.10941 (2023), called SGAR here; relatives: SSR (Fu et al., AAAI 2021), IAA (Fu et al., TMM
//! 2022).
//!
//! ```text
//! x [b, d] ─► gate (which samples?) ─► source of ranked items
//!              synthetic      generator: x_i^j = x_i + (intensity j) (direction u_i^j)   [b, N, d]
//!              augmentations  re-embedded graded augmentations of the image              [b, N, d]
//!              members        members of the class, in the order of a teacher
//!          ─► projector q ─► ranking loss + anchor loss ─► mean over samples, or sum over classes of class means
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`config`] | every switch, and the presets |
//! | [`task`] | the module a trainer calls, which puts the rest together |
//! | [`gate`] | which samples are good sources |
//! | [`synthesis`] | the generators, one file each |
//! | [`projector`] | `q`, used only in training |
//! | [`ranking`] | order of the levels |
//! | [`anchor`] | the outermost level stays inside the class |
//! | [`point`] | every level stays recognisable as its source |
//! | [`members`] | ranking of real members in the order of a teacher |
//! | `mixtures` | generated samples that have a place in that order |
//! | [`schedule`] | how much all of it weighs in the course of a run |
//! | [`statistics`] | means and variances of the training classes |
//!
//! The ranking part needs no label: with the gate open and no anchor loss, classes are never looked at.

pub mod anchor;
pub(crate) mod arithmetic;
pub mod config;
pub mod gate;
pub mod members;
mod mixtures;
pub mod point;
pub mod projector;
pub mod ranking;
pub mod schedule;
pub mod statistics;
pub mod synthesis;
pub mod task;

pub use anchor::AnchorConfig;
pub use config::{Aggregate, BaseOn, IntraClassConfig, Source};
pub use gate::{GateConfig, GateKind};
pub use members::{MembersConfig, MembersMode, MembersSpace};
pub use point::PointConfig;
pub use projector::{Projector, ProjectorConfig, Relu};
pub use ranking::{MarginGrowth, RankedPairs, RankingConfig, Sides};
pub use schedule::WeightSchedule;
pub use statistics::ClassStatistics;
pub use synthesis::GeneratorConfig;
pub use task::{IntraClass, IntraClassInput, IntraClassOutput, IntraClassReport};
