//! Every switch of the method in one section, and the presets.

use serde::{Deserialize, Serialize};

use super::anchor::AnchorConfig;
use super::gate::{GateConfig, GateKind};
use super::members::{MembersConfig, MembersMode, MembersSpace};
use super::point::PointConfig;
use super::projector::{ProjectorConfig, Relu};
use super::ranking::{MarginGrowth, RankedPairs, RankingConfig};
use super::schedule::WeightSchedule;
use super::statistics::ClassStatistics;
use super::synthesis::{GeneratorConfig, LearnedDirectionsConfig};

/// Where the ranked items come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Generated samples, in the order of their intensity (the paper).
    #[default]
    Synthetic,
    /// Real members of the class in the batch, in the order of a teacher that never saw the labels.
    Members,
    /// Graded augmentations of the image, embedded again, in the order of their strength.
    Augmentations,
    /// Nothing is ranked.
    None,
}

/// How the losses of the selected samples are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Mean over the selected samples.
    #[default]
    Mean,
    /// Sum over the classes of the mean over their selected samples (the paper's released code).
    ClassSum,
}

/// What the base loss sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseOn {
    /// The embedding `x` used at test (the paper's figure).
    #[default]
    Embedding,
    /// Its projection `q(x)` (the paper's released code).
    Projection,
}

/// The method; section `[intra-class]`.
///
/// `L = L_base + weight * aggregate over selected samples [anchor_weight L_anchor + ranking_weight L_rank + point_weight L_point]`.
///
/// The default is the preset [`sgar`](Self::sgar).
///
/// ```
/// use gradus::intra_class::IntraClassConfig;
/// assert_eq!(IntraClassConfig::default(), IntraClassConfig::sgar());
/// assert!(IntraClassConfig::sgar_released().validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IntraClassConfig {
    /// Weight beside the base loss. Default 1.
    pub weight: f64,
    /// How that weight goes in the course of a run. Default `constant`.
    pub schedule: WeightSchedule,
    /// Weight of the anchor loss inside. Default 0.9, the paper's.
    pub anchor_weight: f64,
    /// Weight of the ranking loss inside. Default 0.9, the paper's.
    pub ranking_weight: f64,
    /// Weight of the point loss inside, which bounds how far levels are from their source. Default 0; SSR's is 1.
    pub point_weight: f64,
    /// Number of levels `N`. Default 5, the paper's.
    pub levels: usize,
    /// Intensity of the weakest level; level j has `j * step`. Default 0.3: nearly even cosines to the source.
    pub step: f64,
    /// Where the ranked items come from. Default `synthetic`.
    pub source: Source,
    /// Whether the radial part of directions is taken out, so that generated samples stay near the sphere. Default false.
    pub tangent: bool,
    /// A control: the intensity labels (or the teacher's values) of each sample are dealt out at random. Default false.
    pub shuffle_intensities: bool,
    /// How samples are added up. Default `mean`.
    pub aggregate: Aggregate,
    /// What the base loss sees. Default `embedding`.
    pub base_on: BaseOn,
    /// Which samples are used.
    pub gate: GateConfig,
    /// How samples are generated. Default `gaussian`.
    pub generator: GeneratorConfig,
    /// The projector in front of the ranking of generated samples.
    pub projector: ProjectorConfig,
    /// The ranking loss. Its `scale` holds for members too.
    pub ranking: RankingConfig,
    /// The anchor loss on generated samples; members have none.
    pub anchor: AnchorConfig,
    /// The point loss on levels; members have none.
    pub point: PointConfig,
    /// Ranking of members.
    pub members: MembersConfig,
}

impl Default for IntraClassConfig {
    fn default() -> Self {
        Self::sgar()
    }
}

impl IntraClassConfig {
    /// The paper as described (arXiv 2304.10941): cosine gate, fresh Gaussian directions for each sample without a second
    /// normalisation, rectified projections, evenly spaced rings, mean over samples, base loss on the embedding.
    #[must_use]
    pub fn sgar() -> Self {
        Self {
            weight: 1.0,
            schedule: WeightSchedule::Constant,
            anchor_weight: 0.9,
            ranking_weight: 0.9,
            point_weight: 0.0,
            levels: 5,
            step: 0.3,
            source: Source::Synthetic,
            tangent: false,
            shuffle_intensities: false,
            aggregate: Aggregate::Mean,
            base_on: BaseOn::Embedding,
            gate: GateConfig::default(),
            generator: GeneratorConfig::default(),
            projector: ProjectorConfig {
                enabled: true,
                relu: Relu::AfterNorm,
            },
            ranking: RankingConfig {
                margin: MarginGrowth::Linear,
                ..RankingConfig::default()
            },
            anchor: AnchorConfig::default(),
            point: PointConfig::default(),
            members: MembersConfig::default(),
        }
    }

    /// The paper's code as published, each quirk behind its switch: raw products in the gate, shared learned directions whose
    /// second normalisation cancels the intensity, twice the ranking loss with a constant margin, an anchor loss of the last
    /// selected sample of each class that is not divided by alpha, sums over classes at weight 0.23, base loss on the
    /// projection.
    #[must_use]
    pub fn sgar_released() -> Self {
        let directions = LearnedDirectionsConfig {
            renormalise_directions: true,
            shuffle: true,
        };
        Self {
            weight: 0.23,
            aggregate: Aggregate::ClassSum,
            base_on: BaseOn::Projection,
            gate: GateConfig {
                kind: GateKind::RawProduct,
                threshold: 0.05,
            },
            generator: GeneratorConfig::LearnedDirections(directions),
            projector: ProjectorConfig {
                enabled: true,
                relu: Relu::AfterNorm,
            },
            ranking: RankingConfig {
                pairs: RankedPairs::All,
                margin: MarginGrowth::Constant,
                halves: 2,
                ..RankingConfig::default()
            },
            anchor: AnchorConfig {
                last_of_class: true,
                divide_by_alpha: false,
                ..AnchorConfig::default()
            },
            ..Self::sgar()
        }
    }

    /// Real members of each class, held to the order of a teacher, directly on the embedding: no gate, no projector, no anchor loss.
    ///
    /// Correlation asks for order and proportions but not for the size of gaps, which a class the base loss draws together cannot
    /// keep; its weight was chosen on training classes (docs/results.md).
    #[must_use]
    pub fn members() -> Self {
        Self {
            weight: 0.7,
            anchor_weight: 0.0,
            ranking_weight: 1.0,
            source: Source::Members,
            gate: GateConfig {
                kind: GateKind::None,
                ..GateConfig::default()
            },
            projector: ProjectorConfig {
                enabled: false,
                relu: Relu::None,
            },
            ranking: RankingConfig::default(),
            members: MembersConfig {
                mode: MembersMode::Correlation,
                ..MembersConfig::default()
            },
            ..Self::sgar()
        }
    }

    /// The base loss alone.
    #[must_use]
    pub fn disabled() -> Self {
        Self {
            weight: 0.0,
            source: Source::None,
            ..Self::members()
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// If a number is out of its range or two switches contradict each other, naming the key.
    pub fn validate(&self) -> Result<(), String> {
        for (name, value) in [
            ("weight", self.weight),
            ("anchor-weight", self.anchor_weight),
            ("ranking-weight", self.ranking_weight),
            ("point-weight", self.point_weight),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!(
                    "intra-class.{name} is {value}: expected a number of at least 0"
                ));
            }
        }
        if !(1..=1000).contains(&self.levels) {
            return Err(format!(
                "intra-class.levels is {}: expected 1 to 1000 levels",
                self.levels
            ));
        }
        if !(self.step.is_finite() && self.step > 0.0) {
            return Err(format!("intra-class.step is {}: expected a positive number", self.step));
        }
        self.gate.validate()?;
        self.generator.validate()?;
        self.ranking.validate()?;
        self.anchor.validate()?;
        self.point.validate()?;
        self.members.validate()?;
        if self.members.space != MembersSpace::Embedding && self.source != Source::Members {
            return Err(format!(
                "intra-class.members.space is \"{}\" but intra-class.source is not \"members\", so that no members are ranked: set \
                 source = \"members\", or space = \"embedding\"",
                self.members.space.name()
            ));
        }
        if self.point_weight > 0.0 && self.source == Source::Members {
            return Err(format!(
                "intra-class.point-weight is {} but intra-class.source is \"members\": the point loss holds levels at the sample they \
                 come from, and members come from none; set point-weight = 0",
                self.point_weight
            ));
        }
        if self.base_on == BaseOn::Projection && !self.projector.enabled {
            return Err(
                "intra-class.base-on is \"projection\" but intra-class.projector.enabled is false: there is no \
                        projection to put the base loss on; enable the projector, or set base-on = \"embedding\""
                    .to_owned(),
            );
        }
        if self.ranks_levels() && self.ranking_weight > 0.0 {
            if self.levels < 2 {
                return Err(
                    "intra-class.levels is 1 but a single level has no order: set at least 2 levels, or \
                            intra-class.ranking-weight = 0"
                        .to_owned(),
                );
            }
            // Rectified rows have no negative coordinate, so that their products stay in [0, 1].
            let rectified = self.projector.enabled && self.projector.relu != Relu::None;
            let range = if rectified { 1.0 } else { 2.0 };
            let needed = (self.levels - 1) as f64 * self.ranking.delta;
            if needed > range {
                return Err(format!(
                    "intra-class.ranking.delta is {} with {} levels: {} gaps need {needed:.2} of similarity, but the projector \
                     leaves a range of {range}; lower delta or the number of levels",
                    self.ranking.delta,
                    self.levels,
                    self.levels - 1
                ));
            }
        }
        Ok(())
    }

    /// The weight beside the base loss where a share `progress` of the run is done.
    #[must_use]
    pub fn weight_at(&self, progress: f64) -> f64 {
        self.weight * self.schedule.factor(progress)
    }

    /// Whether a trainer must hand in teacher features.
    #[must_use]
    pub fn needs_teacher(&self) -> bool {
        self.source == Source::Members && self.is_active()
    }

    /// Where members are ranked; in the embedding where none are.
    #[must_use]
    pub fn ranked_space(&self) -> MembersSpace {
        if self.needs_teacher() {
            self.members.space
        } else {
            MembersSpace::Embedding
        }
    }

    /// Number of graded augmentations of each image that must be loaded and embedded again, where any are ranked.
    #[must_use]
    pub fn graded_levels(&self) -> Option<usize> {
        (self.ranks_graded() && self.is_active()).then_some(self.levels)
    }

    /// Whether a trainer must keep [`ClassStatistics`].
    #[must_use]
    pub fn needs_statistics(&self) -> bool {
        let used = matches!(self.generator, GeneratorConfig::ClassCovariance(_));
        used && self.source == Source::Synthetic && self.is_active()
    }

    /// Epochs between two refreshes of the statistics, the first one before the first step; at least 1.
    #[must_use]
    pub fn statistics_every(&self) -> usize {
        match &self.generator {
            GeneratorConfig::ClassCovariance(config) => config.refresh_epochs.max(1),
            _ => 1,
        }
    }

    /// Empty statistics with the settings of the generator.
    #[must_use]
    pub fn statistics(&self) -> ClassStatistics {
        match &self.generator {
            GeneratorConfig::ClassCovariance(config) => ClassStatistics::new(config),
            _ => ClassStatistics::default(),
        }
    }

    /// Whether anything is ranked or anchored at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let of_levels = self.anchor_weight > 0.0 || self.point_weight > 0.0;
        let inside = self.ranking_weight > 0.0 || (of_levels && self.ranks_levels());
        self.source != Source::None && self.weight > 0.0 && inside
    }

    /// Whether generated levels are ranked, rather than members.
    fn ranks_levels(&self) -> bool {
        matches!(self.source, Source::Synthetic | Source::Augmentations)
    }

    /// Whether the levels are embedded augmentations, by either name.
    pub(super) fn ranks_graded(&self) -> bool {
        let generated = matches!(self.generator, GeneratorConfig::ImageAugmentation(_));
        self.source == Source::Augmentations || (self.source == Source::Synthetic && generated)
    }

    /// Whether a projector has any use.
    pub(super) fn uses_projector(&self) -> bool {
        self.projector.enabled && (self.base_on == BaseOn::Projection || (self.ranks_levels() && self.is_active()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::intra_class::synthesis::{
        ClassCovarianceConfig, DifferenceTransferConfig, GaussianConfig, ImageAugmentationConfig, Path,
        PositiveInterpolationConfig,
    };
    use crate::intra_class::{MembersMode, Sides};

    fn presets() -> [IntraClassConfig; 4] {
        [
            IntraClassConfig::sgar(),
            IntraClassConfig::sgar_released(),
            IntraClassConfig::members(),
            IntraClassConfig::disabled(),
        ]
    }

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for preset in presets() {
            preset.validate().unwrap();
            let text = toml::to_string(&preset).unwrap();
            assert_eq!(toml::from_str::<IntraClassConfig>(&text).unwrap(), preset, "{text}");
        }
    }

    #[test]
    fn every_generator_and_switch_survives_toml() {
        let generators = [
            GeneratorConfig::Gaussian(GaussianConfig {}),
            GeneratorConfig::LearnedDirections(LearnedDirectionsConfig {
                renormalise_directions: true,
                shuffle: false,
            }),
            GeneratorConfig::ClassCovariance(ClassCovarianceConfig {
                refresh_epochs: 2,
                ..Default::default()
            }),
            GeneratorConfig::PositiveInterpolation(PositiveInterpolationConfig { path: Path::Extra }),
            GeneratorConfig::DifferenceTransfer(DifferenceTransferConfig {}),
            GeneratorConfig::ImageAugmentation(ImageAugmentationConfig {}),
        ];
        for generator in generators {
            let mut config = IntraClassConfig {
                generator,
                tangent: true,
                ..IntraClassConfig::sgar()
            };
            config.ranking.sides = Sides::Two;
            config.members.mode = MembersMode::Listwise;
            config.members.mixtures = 7;
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<IntraClassConfig>(&text).unwrap(), config, "{text}");
        }
        let written = "levels = 3\n[gate]\nkind = \"raw-product\"\n[generator.learned-directions]\nrenormalise-directions = true\n";
        let read: IntraClassConfig = toml::from_str(written).unwrap();
        assert_eq!(read.levels, 3);
        assert_eq!(read.gate.kind, GateKind::RawProduct);
        let directions = LearnedDirectionsConfig {
            renormalise_directions: true,
            shuffle: true,
        };
        assert_eq!(read.generator, GeneratorConfig::LearnedDirections(directions));
    }

    #[test]
    fn unknown_keys_and_variants_are_refused() {
        for (text, word) in [
            ("levles = 3", "levles"),
            ("source = \"member\"", "member"),
            ("[gate]\ntau = 0.1", "tau"),
            ("[generator.gausian]", "gausian"),
            ("[generator.gaussian]\nstep = 1.0", "step"),
            ("[generator.gaussian]\n[generator.learned-directions]", "generator"),
            ("[projector]\nrelus = \"none\"", "relus"),
            ("[ranking]\nmargins = 0.1", "margins"),
            ("[anchor]\nbeta = 0.1", "beta"),
            ("[members]\nmode = \"list-wise\"", "list-wise"),
        ] {
            let error = toml::from_str::<IntraClassConfig>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn contradictions_and_bad_numbers_are_named() {
        let check = |change: fn(&mut IntraClassConfig), word: &str| {
            let mut config = IntraClassConfig::sgar();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        check(|c| c.weight = f64::NAN, "intra-class.weight");
        check(|c| c.anchor_weight = -1.0, "intra-class.anchor-weight");
        check(|c| c.levels = 0, "intra-class.levels");
        check(|c| c.levels = 1, "ranking-weight");
        check(|c| c.step = 0.0, "intra-class.step");
        check(|c| c.gate.threshold = f64::INFINITY, "intra-class.gate.threshold");
        check(|c| c.ranking.scale = 0.0, "intra-class.ranking.scale");
        check(|c| c.ranking.kappa = 0.5, "intra-class.ranking.kappa");
        check(|c| c.ranking.halves = 3, "intra-class.ranking.halves");
        check(|c| c.ranking.delta = 0.3, "intra-class.ranking.delta");
        check(|c| c.anchor.alpha = 0.0, "intra-class.anchor.alpha");
        check(|c| c.members.temperature = 0.0, "intra-class.members.temperature");
        check(
            |c| (c.base_on, c.projector.enabled) = (BaseOn::Projection, false),
            "intra-class.base-on",
        );
        check(
            |c| {
                c.generator = GeneratorConfig::ClassCovariance(ClassCovarianceConfig {
                    momentum: 1.0,
                    ..Default::default()
                });
            },
            "momentum",
        );
    }

    #[test]
    fn needs_follow_the_source() {
        let [sgar, released, members, disabled] = presets();
        assert!(members.needs_teacher() && !sgar.needs_teacher() && !disabled.needs_teacher());
        assert!(sgar.uses_projector() && released.uses_projector() && !members.uses_projector());
        assert!(!disabled.is_active() && !disabled.uses_projector());
        assert_eq!(sgar.graded_levels(), None);
        assert_eq!(
            IntraClassConfig {
                source: Source::Augmentations,
                ..sgar.clone()
            }
            .graded_levels(),
            Some(5)
        );
        let generator = GeneratorConfig::ImageAugmentation(ImageAugmentationConfig {});
        assert_eq!(
            IntraClassConfig {
                generator,
                levels: 3,
                ..sgar.clone()
            }
            .graded_levels(),
            Some(3)
        );
        let generator = GeneratorConfig::ClassCovariance(ClassCovarianceConfig::default());
        let covariance = IntraClassConfig { generator, ..sgar };
        assert!(covariance.needs_statistics() && covariance.statistics_every() == 4);
        assert!(!released.needs_statistics());
        // The arm "projector only": nothing is ranked, but the base loss sees the projection.
        assert!(
            IntraClassConfig {
                source: Source::None,
                ..released
            }
            .uses_projector()
        );
    }
}
