//! The sections of the configuration that belong to no other module, and the whole tree.

use std::path::{Path, PathBuf};

use gradus_core::data::Layout;
use gradus_core::data::flora::FloraConfig;
use gradus_core::data::split::ClassFold;
use gradus_core::data::transform::TransformConfig;
use gradus_core::evaluation::can_be_maximised;
use gradus_core::miners::MinerConfig;
use gradus_core::samplers::SamplerConfig;
use serde::{Deserialize, Serialize};

use crate::auxiliary_losses::AuxiliaryConfig;
use crate::device::DeviceConfig;
use crate::embedding_augmentation::EmbeddingAugmentationConfig;
use crate::intra_class::synthesis::ClassCovarianceConfig;
use crate::intra_class::{BaseOn, GeneratorConfig, IntraClassConfig, MembersSpace};
use crate::losses::{LossConfig, Support};
use crate::models::ModelConfig;
use crate::train::memory::MemoryConfig;
use crate::train::optimizer::{Clipping, UpdateRule};
use crate::train::schedule::Decay;

/// Everything a training run depends on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Seed of every random stream (default 0).
    pub seed: u64,
    /// The preset the configuration started from (default `gradus`); recorded only, its values are in the tree.
    pub preset: String,
    /// Where to compute (default `auto`).
    pub device: DeviceConfig,
    /// Which images, which classes.
    pub data: DataConfig,
    /// How images become tensors.
    pub transform: TransformConfig,
    /// Which items meet in a batch.
    pub sampler: SamplerConfig,
    /// The network.
    pub model: ModelConfig,
    /// The supervised base loss.
    pub loss: LossConfig,
    /// Which pairs or triplets the base loss looks at (default none: all).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miner: Option<MinerConfig>,
    /// Cross-batch memory the base loss compares batches with (default none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryConfig>,
    /// What is generated in embedding space for the base loss (default nothing, which is written `"none"`: a stored configuration shall
    /// take away what its preset puts there).
    #[serde(with = "or_none")]
    pub embedding_augmentation: Option<EmbeddingAugmentationConfig>,
    /// A loss beside the base loss that is dropped after training (default none, written `"none"`, too).
    #[serde(with = "or_none")]
    pub auxiliary_loss: Option<AuxiliaryConfig>,
    /// The method: intra-class ranking.
    pub intra_class: IntraClassConfig,
    /// Who orders the members of a class, where the method ranks members.
    pub teacher: TeacherConfig,
    /// Update rule and learning rates.
    pub optimizer: OptimizerConfig,
    /// Length and bookkeeping of the run.
    pub train: TrainConfig,
    /// What is measured.
    pub evaluation: EvaluationConfig,
}

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Folder, list or archive; `flora` (the default) is the embedded data set.
    pub path: PathBuf,
    /// Further paths read as one data set with the first: Omniglot's second archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<PathBuf>,
    /// Classes of vectors that another model made (`path` is then their file), when they do not lie in or beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Layout, when recognition from the files is not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Official numbers of the training classes, such as `1-25,30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_classes: Option<String>,
    /// Official numbers of the test classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_classes: Option<String>,
    /// Share of the training *classes* held out for validation (default 0: none; early stopping needs some).
    pub validation: f64,
    /// Which of so many folds of the training classes is held out in place of a share, written like `2/4` (default none): with each of
    /// them in turn, a cross-validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_fold: Option<ClassFold>,
    /// Whether every training image is also trained on turned by 90, 180 and 270 degrees, as another class each (default false;
    /// usual on Omniglot). Validation and test images stay upright.
    pub rotations_as_classes: bool,
    /// Share of broken images that is tolerated (default 0.001); they are named and left out.
    pub max_bad_images: f64,
    /// Decoding threads (default 0: one per core).
    pub threads: usize,
    /// JPEG files are decoded at a half, a quarter or an eighth of their size as long as their short side keeps so many pixels
    /// (default 0: whole, which alone gives the pixels that Pillow decodes). Holds for training and the evaluations of the
    /// run; `embed`, `index` and `search` always decode whole. At least twice the size of the views loses little.
    pub jpeg_short_side: u32,
    /// Where decoded images are kept between epochs (default `ram`); what is trained does not depend on it.
    pub cache: CacheKind,
    /// Memory for decoded images with `cache = "ram"`, in MiB (default 1024).
    pub cache_mib: usize,
    /// The most the file of a data set may take with `cache = "disk"`, in MiB (default 16384).
    pub disk_cache_mib: usize,
    /// Folder for the files of `cache = "disk"` (default: `gradus` in the user's cache folder, such as `~/.cache`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_folder: Option<PathBuf>,
    /// The embedded data set.
    pub flora: FloraConfig,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("flora"),
            with: Vec::new(),
            labels: None,
            layout: None,
            train_classes: None,
            test_classes: None,
            validation: 0.0,
            validation_fold: None,
            rotations_as_classes: false,
            max_bad_images: 0.001,
            threads: 0,
            jpeg_short_side: 0,
            cache: CacheKind::Ram,
            cache_mib: 1024,
            disk_cache_mib: 16384,
            cache_folder: None,
            flora: FloraConfig::default(),
        }
    }
}

/// Where decoded images are kept between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheKind {
    /// In memory, for as long as the program runs.
    #[default]
    Ram,
    /// In one file per data set, which later runs find again; checked against each image's size and modification time.
    Disk,
    /// Nowhere: every image is decoded in every epoch.
    None,
}

/// Section `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OptimizerConfig {
    /// Update rule (default AdamW).
    pub rule: UpdateRule,
    /// Learning rate of the trunk (default 1e-4, Proxy-Anchor's).
    pub rate: f64,
    /// Factor on the rate for the embedding head (default 1).
    pub head_factor: f64,
    /// Factor on the rate for proxies, projector and learned directions (default 100, Proxy-Anchor's).
    pub criterion_factor: f64,
    /// How the rates fall.
    pub decay: Decay,
    /// Epochs at the start in which the trunk stays as it is (default 1, Proxy-Anchor's).
    pub warm_up_epochs: usize,
    /// Bound on gradients (default each entry to ±10, Proxy-Anchor's).
    pub clipping: Clipping,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rule: UpdateRule::default(),
            rate: 1e-4,
            head_factor: 1.0,
            criterion_factor: 100.0,
            decay: Decay::default(),
            warm_up_epochs: 1,
            clipping: Clipping::Value(10.0),
        }
    }
}

/// Section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Epochs (default 20); 0 only evaluates the start.
    pub epochs: usize,
    /// Batches per epoch at most (default 0: all the sampler gives).
    pub max_batches: usize,
    /// Minutes of training at most, over all sessions of the run (default 0: no limit). Rates fall by epochs all the same, so
    /// choose as many as fit.
    pub max_minutes: f64,
    /// Images in one pass through the network (default 0: the whole batch). With fewer than a batch, gradients are cached
    /// (Gao et al., 2021): every image passes twice, and the batch can be far larger than memory.
    pub gradient_cache: usize,
    /// Whether only what goes into the blocks of the trunk is kept in memory, and each block computed again in the backward pass
    /// (Chen et al., 2016; default false): less memory for one more forward pass. Not together with `gradient-cache`.
    pub gradient_checkpointing: bool,
    /// Workers that share every batch (default 1): GPUs from the one named by `device.on` on; on the processor they take turns,
    /// which simulates them. Embeddings are gathered, so that each item is compared with the whole batch. Not together with
    /// `gradient-cache` or `gradient-checkpointing`.
    pub workers: usize,
    /// Batches whose gradients are averaged before the parameters are updated (default 1). Unlike with `gradient-cache`, items of
    /// different batches are not compared with each other.
    pub accumulation: usize,
    /// How proxies start (default `class-means`).
    pub proxies: ProxyStart,
    /// Decay per step of a moving average of the weights that is evaluated and saved instead (default 0.99; 0: none). It rises
    /// from 0.1 over the first steps, so that a short run does not end where it began.
    pub weight_average: f64,
    /// Stop when validation no longer improves (default none); needs `data.validation` above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Epochs between validations (default 1).
    pub validate_every: usize,
    /// Validation images measured each time (default 0: all): whole classes, always the same, until there are so many.
    pub validation_images: usize,
    /// How many checkpoints are kept beside the best one (default 2).
    pub keep_checkpoints: usize,
    /// Augmented views of every training image whose features are stored when the trunk is frozen (default 1: the image as
    /// evaluation sees it). Every epoch draws one of them for each image.
    pub feature_views: usize,
    /// Where the features of a frozen trunk are kept for later runs with the same trunk, images and transform (default `auto`).
    pub feature_cache: FeatureCache,
    /// Most that is kept there, in MiB (default 10240); what was not of use for longest makes room.
    pub feature_cache_mib: usize,
}

/// Where features of a frozen trunk are kept: `auto` (`gradus/features` in the user's cache folder), `none` (in memory, for this
/// run), or a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FeatureCache {
    /// In the cache folder of the user, such as `~/.cache`; in memory where there is none.
    #[default]
    Automatic,
    /// In memory.
    None,
    /// In this folder.
    Folder(PathBuf),
}

impl From<String> for FeatureCache {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Automatic,
            "none" => Self::None,
            _ => Self::Folder(text.into()),
        }
    }
}

impl From<FeatureCache> for String {
    fn from(cache: FeatureCache) -> Self {
        match cache {
            FeatureCache::Automatic => "auto".to_owned(),
            FeatureCache::None => "none".to_owned(),
            FeatureCache::Folder(folder) => folder.to_string_lossy().into_owned(),
        }
    }
}

/// A section that may be missing, which is written `"none"`.
mod or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        section: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match section {
            Some(section) => section.serialize(serializer),
            None => serializer.serialize_str("none"),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        if value.as_str() == Some("none") {
            return Ok(None);
        }
        T::deserialize(value).map(Some).map_err(serde::de::Error::custom)
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 20,
            max_batches: 0,
            max_minutes: 0.0,
            gradient_cache: 0,
            gradient_checkpointing: false,
            workers: 1,
            accumulation: 1,
            proxies: ProxyStart::ClassMeans,
            weight_average: 0.99,
            early_stopping: None,
            validate_every: 1,
            validation_images: 0,
            keep_checkpoints: 2,
            feature_views: 1,
            feature_cache: FeatureCache::Automatic,
            feature_cache_mib: 10_240,
        }
    }
}

/// How the proxies start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyStart {
    /// At the normalised class means of the untrained embeddings.
    ClassMeans,
    /// As the loss draws them.
    Random,
}

/// Section `[train.early-stopping]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EarlyStopping {
    /// Which measure must improve (default `map@r`).
    pub measure: String,
    /// Validations without improvement before training stops (default 5).
    pub patience: usize,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self {
            measure: "map@r".to_owned(),
            patience: 5,
        }
    }
}

/// Section `[teacher]`: who orders the members of a class; it never saw the labels unless it is a moving average.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TeacherConfig {
    /// Which network (default the model as it was before training).
    pub kind: TeacherKind,
    /// Which of its outputs (default its embedding, that is the principal components of its features; `middle` where a pretrained
    /// trunk is trained on, `thumbnail` where a trunk starts from random weights).
    pub space: TeacherSpace,
    /// Decay per step of the moving average (default 0.999).
    pub momentum: Momentum,
    /// The other network, for kind `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<ModelConfig>,
    /// The file of vectors, for kind `vectors`: `.npy` with its table of names, `.npz`, `.safetensors` or `.parquet`, as `gradus embed`
    /// writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<PathBuf>,
}

impl TeacherConfig {
    /// Whether the settings fit each other.
    fn validate(&self) -> Result<(), String> {
        match (self.kind, &self.network, &self.vectors) {
            (TeacherKind::Network, None, _) => Err(
                "teacher.kind = \"network\" needs a section [teacher.network] with a backbone and weights".to_owned(),
            ),
            (TeacherKind::Vectors, _, None) => Err(
                "teacher.kind = \"vectors\" needs teacher.vectors: a file of vectors and the names of their images, such as `gradus \
                 embed` writes"
                    .to_owned(),
            ),
            (TeacherKind::Vectors, _, Some(_)) if self.space != TeacherSpace::Embedding => Err(
                "teacher.space chooses among the outputs of a network, but teacher.kind = \"vectors\" has none: leave it out".to_owned(),
            ),
            (kind, _, Some(_)) if kind != TeacherKind::Vectors => Err(
                "teacher.vectors is read with teacher.kind = \"vectors\" alone: set that, or leave the file out".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// The file of vectors that teaches, if one does.
    #[must_use]
    pub fn vectors_that_teach(&self) -> Option<&Path> {
        self.vectors.as_deref().filter(|_| self.kind == TeacherKind::Vectors)
    }
}

/// A decay per step in `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Momentum(pub f64);

impl Default for Momentum {
    fn default() -> Self {
        Self(0.999)
    }
}

/// Which network teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherKind {
    /// The model as it was before training.
    #[default]
    Frozen,
    /// A moving average of the model's weights.
    MovingAverage,
    /// Another pretrained network, `[teacher.network]`.
    Network,
    /// Vectors of the images in a file, `teacher.vectors`: of any model, or of anything else that is known of them.
    Vectors,
}

/// Which output of the teacher orders members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherSpace {
    /// The embedding.
    #[default]
    Embedding,
    /// The pooled features of the trunk.
    Features,
    /// The trunk's last feature map at 4 x 4 positions, centred on the batch: it orders by pose and place too, which pooled
    /// features forget.
    Map,
    /// What the trunk has three quarters of its blocks up, averaged over places and centred on the batch: it tells pose and form
    /// better than the last map does.
    Middle,
    /// What the trunk has at the end of its last stage but one (transformers: three quarters of their blocks up) at 4 x 4
    /// positions, centred on the batch: pose and place of early layers, still in parts. The default where the trunk is pretrained
    /// and trained on.
    MiddleMap,
    /// No network at all: colours at 8 x 8 places, edges at 4 x 4, and to which side of each of 8 rings around the middle light,
    /// colour and edges lie. For networks that start from random weights, which know nothing yet that could be kept.
    Thumbnail,
}

/// Section `[evaluation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EvaluationConfig {
    /// K of Recall@K (default empty: the benchmark's own list).
    pub recall: Vec<usize>,
    /// Images per forward pass (default 64).
    pub batch_size: usize,
    /// Memory for similarity blocks, in MiB (default 256).
    pub memory_mib: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            recall: Vec::new(),
            batch_size: 64,
            memory_mib: 256,
        }
    }
}

impl Config {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// One sentence naming the key, what was expected and what was found.
    pub fn validate(&self) -> Result<(), String> {
        let positive = |key: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(format!("{key} = {value}: expected a positive number"))
            }
        };
        let share = |key: &str, value: f64| {
            if (0.0..1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key} = {value}: expected a number of at least 0 and below 1"))
            }
        };
        positive("optimizer.rate", self.optimizer.rate)?;
        positive("optimizer.head-factor", self.optimizer.head_factor)?;
        positive("optimizer.criterion-factor", self.optimizer.criterion_factor)?;
        self.optimizer.decay.validate()?;
        match self.optimizer.clipping {
            Clipping::Value(limit) => positive("optimizer.clipping.value", limit)?,
            Clipping::Norm(limit) => positive("optimizer.clipping.norm", limit)?,
            Clipping::None => {}
        }
        share("data.validation", self.data.validation)?;
        if self.data.validation > 0.0 && self.data.validation_fold.is_some() {
            return Err("data.validation and data.validation-fold both hold classes out: give one of them".to_owned());
        }
        if !(0.0..=1.0).contains(&self.data.max_bad_images) {
            return Err(format!(
                "data.max-bad-images = {}: expected a share between 0 and 1",
                self.data.max_bad_images
            ));
        }
        share("teacher.momentum", self.teacher.momentum.0)?;
        share("train.weight-average", self.train.weight_average)?;
        self.teacher.validate()?;
        if let Some(stopping) = &self.train.early_stopping {
            if self.data.validation <= 0.0 && self.data.validation_fold.is_none() {
                return Err(
                    "train.early-stopping needs data.validation above 0: validation classes are carved out of the \
                            training classes, never out of the test classes"
                        .to_owned(),
                );
            }
            if !can_be_maximised(&stopping.measure) {
                return Err(format!(
                    "train.early-stopping.measure = \"{}\": expected a measure of which more is better and that training takes: \
                     recall@K, map@r, r_precision, or order_preservation where factors are known",
                    stopping.measure
                ));
            }
            if stopping.patience == 0 {
                return Err("train.early-stopping.patience = 0: expected at least 1".to_owned());
            }
        }
        if !(self.train.max_minutes >= 0.0 && self.train.max_minutes.is_finite()) {
            return Err(format!(
                "train.max-minutes = {}: expected a number of at least 0 (0: no limit)",
                self.train.max_minutes
            ));
        }
        if self.train.validate_every == 0 {
            return Err("train.validate-every = 0: expected at least 1".to_owned());
        }
        if self.train.keep_checkpoints == 0 {
            return Err("train.keep-checkpoints = 0: expected at least 1, or a run could not be resumed".to_owned());
        }
        if self.evaluation.batch_size == 0 {
            return Err("evaluation.batch-size = 0: expected at least 1".to_owned());
        }
        if self.evaluation.recall.contains(&0) {
            return Err("evaluation.recall contains 0: expected numbers of at least 1".to_owned());
        }
        self.model.validate().map_err(|error| error.to_string())?;
        if self.model.vectors.is_none() {
            let size = self.transform.size;
            self.model
                .backbone
                .check_size(size)
                .map_err(|error| error.to_string())?;
        }
        self.loss.validate()?;
        self.loss.validate_reduces()?;
        self.validate_composition()?;
        self.intra_class.validate()?;
        let without_images = match (self.model.vectors, self.model.freeze_trunk) {
            (Some(_), _) => Some(("model.vectors trains on vectors", "train on images")),
            (None, true) => Some((
                "model.freeze-trunk trains on stored features",
                "train without --freeze-trunk",
            )),
            (None, false) => None,
        };
        if let Some((what, instead)) = without_images
            && self.teacher.kind == TeacherKind::Network
            && self.intra_class.needs_teacher()
        {
            return Err(format!(
                "teacher.kind = \"network\" sees images, but {what}: use teacher.kind = \"frozen\", or {instead}"
            ));
        }
        if self.model.vectors.is_some() && self.intra_class.graded_levels().is_some() {
            return Err(
                "intra-class.source = \"augmentations\" augments images, but model.vectors trains on vectors: use another source".to_owned(),
            );
        }
        let sees_images = match self.teacher.space {
            TeacherSpace::Map => Some("map"),
            TeacherSpace::Middle => Some("middle"),
            TeacherSpace::MiddleMap => Some("middle-map"),
            TeacherSpace::Thumbnail => Some("thumbnail"),
            TeacherSpace::Embedding | TeacherSpace::Features => None,
        };
        if let (Some(space), Some((what, instead))) = (sees_images, without_images)
            && self.intra_class.needs_teacher()
        {
            return Err(format!(
                "teacher.space = \"{space}\" sees images, but {what}: use teacher.space = \"embedding\" or \"features\", or {instead}"
            ));
        }
        Ok(())
    }

    /// The class statistics that the run must keep, if any.
    #[must_use]
    pub fn class_statistics(&self) -> Option<&ClassCovarianceConfig> {
        let generator = match &self.intra_class.generator {
            GeneratorConfig::ClassCovariance(statistics) if self.intra_class.needs_statistics() => Some(statistics),
            _ => None,
        };
        let augmentation = self.embedding_augmentation.as_ref();
        generator.or_else(|| augmentation.and_then(EmbeddingAugmentationConfig::statistics))
    }

    /// Checks that what is generated for the base loss fits the rest.
    fn validate_augmentation(&self, augmentation: &EmbeddingAugmentationConfig) -> Result<(), String> {
        let name = augmentation.name();
        augmentation.validate(&self.loss)?;
        if self.memory.is_some() {
            return Err(format!(
                "embedding-augmentation.{name} augments a batch that is compared with itself, but [memory] gives it something \
                 else to compare with: leave one of the two out (embedding-augmentation = \"none\")"
            ));
        }
        if let Some(MinerConfig::EmbeddingsAlreadyPackagedAsTriplets(_)) = &self.miner
            && augmentation.adds_rows()
        {
            return Err(format!(
                "embedding-augmentation.{name} adds rows to a batch, but miner.embeddings-already-packaged-as-triplets takes \
                 batches for triplets, one after the other: leave one of the two out (embedding-augmentation = \"none\")"
            ));
        }
        let Some(statistics) = augmentation.statistics() else {
            return Ok(());
        };
        if self.intra_class.base_on == BaseOn::Projection {
            return Err(format!(
                "embedding-augmentation.{name} knows the spread of classes in the embedding, but intra-class.base-on = \
                 \"projection\" shows the base loss another space: set base-on = \"embedding\""
            ));
        }
        if self.class_statistics() != Some(statistics) {
            return Err(format!(
                "embedding-augmentation.{name}.statistics and intra-class.generator.class-covariance ask for different class \
                 statistics, but a run keeps one: give both the same settings"
            ));
        }
        Ok(())
    }

    /// Checks that loss, miner, memory and sampler fit together.
    fn validate_composition(&self) -> Result<(), String> {
        let (name, accepts) = (self.loss.name(), self.loss.accepts());
        let two_views = accepts.references == Support::Required;
        if self.train.workers == 0 {
            return Err("train.workers is 0: expected how many share every batch, 1 or more".to_owned());
        }
        let ways = [
            ("gradient-cache", self.train.gradient_cache > 0),
            ("gradient-checkpointing", self.train.gradient_checkpointing),
            ("workers", self.train.workers > 1),
        ];
        let chosen: Vec<&str> = ways.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if let [first, second, ..] = chosen[..] {
            return Err(format!(
                "train.{first} and train.{second} are different ways to the gradients of a batch: choose one of them"
            ));
        }
        let space = self.intra_class.ranked_space();
        if space != MembersSpace::Embedding {
            let name = space.name();
            if self.model.trains_head_alone() {
                return Err(format!(
                    "intra-class.members.space = \"{name}\" ranks what the trunk computes, but the trunk is not trained: set it to \
                     \"embedding\", or train the trunk"
                ));
            }
            if let [way] = chosen[..] {
                return Err(format!(
                    "intra-class.members.space = \"{name}\" ranks what the trunk computes, which train.{way} does not keep: leave that \
                     at its default, or rank the embedding"
                ));
            }
        }
        if self.train.accumulation == 0 {
            return Err("train.accumulation is 0: expected how many batches make one update, 1 or more".to_owned());
        }
        let views = self.train.feature_views;
        if views == 0 || (views > 1 && !self.model.freeze_trunk) {
            return Err(format!(
                "train.feature-views is {views}: expected how many views of every image are stored with model.freeze-trunk, and 1 \
                 without it, where every epoch makes views of its own"
            ));
        }
        if two_views && self.model.freeze_trunk && views < 2 {
            return Err(format!(
                "loss.{name} compares two augmented views of every image, but model.freeze-trunk trains on stored features, \
                 which have one: add --views 8, choose another loss, or train without --freeze-trunk"
            ));
        }
        if two_views && self.model.vectors.is_some() {
            return Err(format!(
                "loss.{name} compares two augmented views of every image, but model.vectors trains on one vector of each: choose \
                 another loss"
            ));
        }
        match (&self.miner, accepts.mined) {
            (Some(miner), Support::Refused) => {
                return Err(format!(
                    "miner.{} chooses pairs or triplets, but loss.{name} looks at whole batches: leave the miner out, or choose \
                     another loss",
                    miner.name()
                ));
            }
            (None, Support::Required) => {
                return Err(format!(
                    "loss.{name} needs mined pairs or triplets: choose a miner, for example --set miner=batch-hard"
                ));
            }
            _ => {}
        }
        if let Some(miner) = &self.miner {
            miner.validate()?;
            let packaged = matches!(miner, MinerConfig::EmbeddingsAlreadyPackagedAsTriplets(_));
            if packaged && !matches!(self.sampler, SamplerConfig::FixedTriplets(_)) {
                return Err(format!(
                    "miner.{} takes batches for triplets, one after the other, but sampler.{} deals none: use it with \
                     sampler.fixed-triplets",
                    miner.name(),
                    self.sampler.name()
                ));
            }
            if packaged && self.memory.is_some() {
                return Err(format!(
                    "miner.{} takes batches for triplets, one after the other, which a memory is not: leave [memory] out, or \
                     choose another miner",
                    miner.name()
                ));
            }
        }
        if let Some(augmentation) = &self.embedding_augmentation {
            self.validate_augmentation(augmentation)?;
        }
        if let Some(auxiliary) = &self.auxiliary_loss {
            auxiliary.validate(self)?;
        }
        let Some(memory) = &self.memory else { return Ok(()) };
        memory.validate(self.sampler.init(self.seed).batch_size())?;
        match accepts.references {
            Support::Optional => Ok(()),
            Support::Refused => Err(format!(
                "[memory] gives a batch something else to compare with, but loss.{name} takes no reference set: leave [memory] \
                 out, or choose a loss of pairs"
            )),
            Support::Required => Err(format!(
                "[memory] gives a batch something else to compare with, but loss.{name} compares it with a second view: leave \
                 [memory] out, or choose another loss"
            )),
        }
    }
}
