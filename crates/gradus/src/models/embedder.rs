//! The whole network and its configuration.

use std::path::PathBuf;

use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::backbones::{BackboneConfig, Normalisation, Trunk};
use super::head::{Head, HeadConfig};
use super::layers::{Builder, Mode};
use super::pooling::{Pooling, PoolingLayer};
use super::{ModelError, weights};
use crate::numerics::normalize;
use crate::tensor::{Device, Module, ModuleMapper, Param, Tensor, adaptive_avg_pool2d};

/// Where a linear head starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    /// At the principal components of the training features.
    #[default]
    Pca,
    /// At PyTorch's random initial weights.
    Random,
}

/// The network of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// The backbone and its options; default `conv4`.
    pub backbone: BackboneConfig,
    /// Width of the vectors that another model made and that are given in place of images: there is then a head alone, no trunk (none
    /// given: images).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<usize>,
    /// Pretrained weights of the backbone: `.safetensors`, `.pth`, `.pt` or `.th`. None: seeded random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// How positions are pooled; default average.
    pub pooling: Pooling,
    /// Whether pooled features are divided by their length before the head; default yes. A bright or busy image has longer
    /// features, which says nothing of its class: without this the principal components start with that length.
    pub normalise_features: bool,
    /// Width of the embedding, 64 to 2048; default 128.
    pub width: usize,
    /// Form of the embedding head; default linear.
    pub head: HeadConfig,
    /// Where a linear head starts; default at the principal components of the training features.
    pub initial: HeadStart,
    /// Whether batch normalisation keeps its running statistics fixed and always uses them; default no.
    pub freeze_batch_norm: bool,
    /// Whether only the head is trained; default no.
    pub freeze_trunk: bool,
    /// How many of the last blocks of the trunk are trained; none given: all. The blocks below run without autodiff, so
    /// they have no backward pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainable_blocks: Option<usize>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::default(),
            vectors: None,
            weights: None,
            pooling: Pooling::default(),
            normalise_features: true,
            width: 128,
            head: HeadConfig::default(),
            initial: HeadStart::default(),
            freeze_batch_norm: false,
            freeze_trunk: false,
            trainable_blocks: None,
        }
    }
}

impl ModelConfig {
    /// Whether only a head is trained: the trunk is frozen, or there is none.
    #[must_use]
    pub fn trains_head_alone(&self) -> bool {
        self.freeze_trunk || self.vectors.is_some()
    }

    /// Checks every option that can be checked without files.
    ///
    /// # Errors
    /// If an option is out of range or two contradict each other.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |message: String| Err(ModelError::Config(message));
        self.backbone.validate()?;
        if !(64..=2048).contains(&self.width) {
            return refuse(format!(
                "The width of the embedding (`model.width`) must be from 64 to 2048, but is {}; 128 and 512 are usual.",
                self.width
            ));
        }
        if let HeadConfig::Mlp { hidden } | HeadConfig::Residual { hidden } = self.head
            && !(1..=16384).contains(&hidden)
        {
            return refuse(format!(
                "The hidden width of the head (`model.head.mlp.hidden`, `model.head.residual.hidden`) must be from 1 to 16384, but is \
                 {hidden}."
            ));
        }
        if let Some(width) = self.vectors {
            if !(1..=65536).contains(&width) {
                return refuse(format!(
                    "The width of given vectors (`model.vectors`) must be from 1 to 65536, but is {width}."
                ));
            }
            let of_trunk = [
                ("weights", self.weights.is_some()),
                ("trainable-blocks", self.trainable_blocks.is_some()),
                ("freeze-trunk", self.freeze_trunk),
                ("freeze-batch-norm", self.freeze_batch_norm),
            ];
            if let Some((key, _)) = of_trunk.iter().find(|(_, given)| *given) {
                return refuse(format!(
                    "`model.vectors` trains a head on given vectors: there is no trunk, so `model.{key}` means nothing. Leave it out."
                ));
            }
            if self.pooling != Pooling::default() {
                return refuse(
                    "`model.vectors` trains a head on given vectors: there is nothing to pool. Leave `model.pooling` out.".to_owned(),
                );
            }
        }
        if self.vectors.is_none() && self.pooling != Pooling::Average && !self.backbone.has_map() {
            return refuse(format!(
                "The backbone `{}` ends in its class token, so that `model.pooling` has nothing to pool. Leave `model.pooling` at \
                 \"average\", or set the backbone's `output` to \"patch-tokens\".",
                self.backbone.info().name
            ));
        }
        if self.freeze_trunk && self.trainable_blocks.is_some_and(|blocks| blocks > 0) {
            return refuse(
                "`model.freeze-trunk` trains no block of the trunk, but `model.trainable-blocks` asks for some: remove \
                 one of the two."
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Builds the network on a device, with weights drawn from the seed and, where given, read from a file.
    ///
    /// # Errors
    /// If the configuration is invalid or the file does not hold this backbone.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Embedder, ModelError> {
        self.validate()?;
        let builder = Builder {
            seed,
            device,
            freeze_batch_norm: self.freeze_batch_norm,
            blank: self.weights.is_some(),
        };
        if let Some(width) = self.vectors {
            return Ok(Embedder {
                trunk: None,
                blocks: 0,
                feature_width: width,
                pooling: PoolingLayer::new(self.pooling, device),
                normalise_features: self.normalise_features,
                head: Head::new(self.head, width, self.width, seed, device),
                frozen_blocks: 0,
                normalisation: self.backbone.info().normalisation,
            });
        }
        let mut trunk = self.backbone.build(&builder);
        let mut normalisation = self.backbone.info().normalisation;
        if let Some(path) = &self.weights {
            let (loaded, info) = weights::load_trunk(trunk, self.backbone.info().name, path)?;
            trunk = loaded;
            normalisation = info.normalisation.unwrap_or(normalisation);
        }
        let features = trunk.backbone().width() * self.pooling.features_per_channel();
        let blocks = trunk.backbone().blocks();
        let trainable = if self.freeze_trunk {
            Some(0)
        } else {
            self.trainable_blocks
        };
        Ok(Embedder {
            trunk: Some(trunk),
            blocks,
            feature_width: features,
            pooling: PoolingLayer::new(self.pooling, device),
            normalise_features: self.normalise_features,
            head: Head::new(self.head, features, self.width, seed, device),
            frozen_blocks: 0,
            normalisation,
        }
        .with_trainable_blocks(trainable))
    }
}

/// A trunk, its pooling and an embedding head.
///
/// # Shapes
/// Images `[batch, 3, height, width]`, normalised; features `[batch, features]`; embeddings `[batch, width]` of unit
/// norm.
#[derive(Module, Debug)]
pub struct Embedder {
    /// Taken out while a head trains on stored features, see [`Self::take_trunk`]; not there at all with `model.vectors`.
    trunk: Option<Trunk>,
    blocks: usize,
    feature_width: usize,
    pooling: PoolingLayer,
    normalise_features: bool,
    head: Head,
    frozen_blocks: usize,
    #[module(skip)]
    normalisation: Normalisation,
}

impl Embedder {
    /// The pooled features of images as the head takes them: of unit length unless `model.normalise-features` is off.
    ///
    /// Blocks that are not trained run in evaluation mode and without autodiff: they record no tape, and gradients
    /// with respect to the images are not available through them.
    #[must_use]
    pub fn features(&self, images: Tensor<4>, mode: Mode) -> Tensor<2> {
        let pooled = self.pooled(images, mode);
        if self.normalise_features {
            normalize(pooled)
        } else {
            pooled
        }
    }

    /// The pooled features of images as the head takes them, and what the trunk has three quarters of its blocks up, averaged over
    /// its places, both as training computes them.
    ///
    /// For trunks that are [trained below there](Self::trains_middle).
    ///
    /// # Shapes
    /// Images `[batch, 3, height, width]` → `[batch, features]` and `[batch, channels]` of that block.
    pub(crate) fn features_with_middle(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let map =
            self.present_trunk()
                .valid()
                .forward(images.without_autodiff(), 0..self.frozen_blocks, Mode::Evaluate);
        let map = if self.is_tracked() { map.autodiff() } else { map };
        let trunk = self.present_trunk();
        let between = trunk.forward(map, self.frozen_blocks..self.middle_block(), Mode::Train);
        let average = trunk.backbone().average_of_places(between.clone());
        let last = trunk.forward(between, self.middle_block()..self.blocks(), Mode::Train);
        (self.pooled_features(last), average)
    }

    /// The number of blocks below the middle: three quarters, never the last one, which may leave the form that goes between
    /// blocks (transformers).
    pub(crate) fn middle_block(&self) -> usize {
        (self.blocks() * 3).div_ceil(4).min(self.blocks() - 1).max(1)
    }

    /// Whether a block below the middle is trained.
    pub(crate) fn trains_middle(&self) -> bool {
        self.frozen_blocks < self.middle_block()
    }

    /// What goes into each trained block and what comes out of the last one, as training computes it, without autodiff.
    ///
    /// # Shapes
    /// Images `[batch, 3, height, width]`; maps `[batch, channels, height, width]`.
    pub(crate) fn block_inputs(&self, images: Tensor<4>) -> (Vec<Tensor<4>>, Tensor<4>) {
        let trunk = self.present_trunk().valid();
        let images = images.without_autodiff();
        let mut map = trunk.forward(images, 0..self.frozen_blocks, Mode::Evaluate);
        let mut inputs = Vec::with_capacity(self.trainable_blocks());
        for block in self.frozen_blocks..self.blocks() {
            inputs.push(map.clone());
            map = trunk.forward(map, block..block + 1, Mode::Train);
        }
        (inputs, map)
    }

    /// One block of the trunk, as training computes it.
    pub(crate) fn trained_block(&self, block: usize, map: Tensor<4>) -> Tensor<4> {
        self.present_trunk().forward(map, block..block + 1, Mode::Train)
    }

    /// The features of the trunk's last map.
    pub(crate) fn pooled_features(&self, map: Tensor<4>) -> Tensor<2> {
        let pooled = if self.frozen_blocks >= self.blocks() {
            self.pool(
                &self.pooling.valid(),
                &self.present_trunk().valid(),
                map.without_autodiff(),
            )
        } else {
            self.pool(&self.pooling, self.present_trunk(), map)
        };
        if self.normalise_features {
            normalize(pooled)
        } else {
            pooled
        }
    }

    fn pooled(&self, images: Tensor<4>, mode: Mode) -> Tensor<2> {
        let blocks = self.blocks();
        if self.frozen_blocks == 0 {
            let map = self.present_trunk().forward(images, 0..blocks, mode);
            return self.pool(&self.pooling, self.present_trunk(), map);
        }
        let frozen = self.present_trunk().valid();
        let map = frozen.forward(images.without_autodiff(), 0..self.frozen_blocks, Mode::Evaluate);
        if self.frozen_blocks >= blocks {
            return self.pool(&self.pooling.valid(), &frozen, map);
        }
        // Back among tracked tensors, but as a leaf that needs no gradient.
        let map = if self.is_tracked() { map.autodiff() } else { map };
        let map = self.present_trunk().forward(map, self.frozen_blocks..blocks, mode);
        self.pool(&self.pooling, self.present_trunk(), map)
    }

    /// The pooled map, `[batch, features]`, each place of it as the trunk wants pooled features.
    fn pool(&self, pooling: &PoolingLayer, trunk: &Trunk, map: Tensor<4>) -> Tensor<2> {
        let [batch, channels, ..] = map.dims();
        let pooled = pooling.forward(map);
        match pooling.kind().features_per_channel() {
            1 => trunk.backbone().after_pooling(pooled),
            places => {
                let by_place: Tensor<3> = pooled.reshape([batch, channels, places]).swap_dims(1, 2);
                let rows = trunk
                    .backbone()
                    .after_pooling(by_place.reshape([batch * places, channels]));
                let by_channel: Tensor<3> = rows.reshape([batch, places, channels]).swap_dims(1, 2);
                by_channel.reshape([batch, channels * places])
            }
        }
    }

    /// The trunk's last feature map in evaluation mode, averaged to at most `grid` x `grid` positions and flattened: unlike
    /// pooled features it still says where things are. Outside autodiff.
    ///
    /// # Shapes
    /// Images `[batch, 3, height, width]` → `[batch, channels * positions]`.
    #[must_use]
    pub fn spatial_features(&self, images: Tensor<4>, grid: usize) -> Tensor<2> {
        let trunk = self.present_trunk().valid();
        on_grid(
            trunk.forward(images.without_autodiff(), 0..self.blocks(), Mode::Evaluate),
            grid,
        )
    }

    /// The same after so many blocks, fewer than all.
    ///
    /// # Shapes
    /// Images `[batch, 3, height, width]` → `[batch, channels * positions]`.
    pub(crate) fn spatial_features_between(&self, images: Tensor<4>, blocks: usize, grid: usize) -> Tensor<2> {
        let trunk = self.present_trunk().valid();
        let between = trunk.forward(images.without_autodiff(), 0..blocks, Mode::Evaluate);
        on_grid(trunk.backbone().map_of_places(between), grid)
    }

    /// The number of blocks up to the end of the last stage but one, for images such as these: up to the last map that is clearly
    /// larger than that of the end (halved and rounded up, 3 become 2). Without stages, the [middle](Self::middle_block).
    pub(crate) fn last_stage_but_one(&self, images: Tensor<4>) -> usize {
        let trunk = self.present_trunk().valid();
        if !trunk.backbone().has_stages() {
            return self.middle_block();
        }
        let mut map = images.without_autodiff();
        let mut sides = Vec::with_capacity(self.blocks());
        for block in 0..self.blocks() {
            map = trunk.forward(map, block..block + 1, Mode::Evaluate);
            let [_, _, height, width] = map.dims();
            sides.push(height.max(width));
        }
        let end = sides.last().copied().unwrap_or_default();
        let larger = sides.iter().rposition(|&side| 2 * side >= 3 * end);
        larger.map_or_else(|| self.middle_block(), |block| block + 1)
    }

    /// What the trunk has three quarters of its blocks up, averaged over its places, in evaluation mode: more of pose and form
    /// than the last map, which was trained to forget what does not tell classes apart. Outside autodiff.
    ///
    /// # Shapes
    /// Images `[batch, 3, height, width]` → `[batch, channels]` of that block.
    #[must_use]
    pub fn middle_features(&self, images: Tensor<4>) -> Tensor<2> {
        let trunk = self.present_trunk().valid();
        let between = trunk.forward(images.without_autodiff(), 0..self.middle_block(), Mode::Evaluate);
        trunk.backbone().average_of_places(between)
    }

    fn is_tracked(&self) -> bool {
        self.devices().iter().any(Device::is_autodiff)
    }

    /// Embeds pooled features as rows of unit norm.
    #[must_use]
    pub fn head(&self, features: Tensor<2>) -> Tensor<2> {
        self.head.forward(features)
    }

    /// Embeds images as rows of unit norm.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>, mode: Mode) -> Tensor<2> {
        self.head(self.features(images, mode))
    }

    /// The network as ONNX operators, as it computes in evaluation: from normalised images `[3, height, width]`, or from the
    /// vectors of another model `[features]`, to embeddings `[width]` of unit norm.
    ///
    /// # Panics
    /// If the device does not hand out the parameters.
    pub fn graph(&self, graph: &mut Graph, input: Value) -> Value {
        let features = match &self.trunk {
            Some(trunk) => {
                graph.begin_trunk();
                let map = trunk.backbone().graph(graph, input);
                graph.end_trunk();
                let channels = map.shape()[0];
                let pooled = self.pooling.graph(graph, map);
                match self.pooling.kind().features_per_channel() {
                    1 => trunk.backbone().graph_after_pooling(graph, pooled),
                    places => {
                        let by_channel = graph.reshape(pooled, &[channels, places]);
                        let by_place = graph.transpose(by_channel, &[1, 0]);
                        let rows = trunk.backbone().graph_after_pooling(graph, by_place);
                        let by_channel = graph.transpose(rows, &[1, 0]);
                        graph.flatten(by_channel)
                    }
                }
            }
            None => input,
        };
        let features = if self.normalise_features {
            graph.unit_length(features)
        } else {
            features
        };
        self.head.graph(graph, features)
    }

    /// Weight `[dim, features]`, row-major, and bias `[dim]` of a linear head; none where it is not linear.
    #[must_use]
    pub fn linear_head(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        self.head.linear()
    }

    /// Width of the pooled features.
    #[must_use]
    pub fn feature_width(&self) -> usize {
        self.feature_width
    }

    /// Width of the embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.head.width()
    }

    /// Sets a linear head, for example to principal components: `embedding = weight * features + bias`, normalised.
    ///
    /// # Shapes
    /// `weight` row-major `[dim, features]`, `bias` `[dim]`.
    ///
    /// # Errors
    /// If the head is an MLP or the numbers do not fill it.
    pub fn set_linear_head(self, weight: &[f32], bias: &[f32]) -> Result<Self, ModelError> {
        let head = self.head.with_linear(weight, bias)?;
        Ok(Self { head, ..self })
    }

    /// Number of blocks of the trunk, the stem included.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The trunk; none where the network is a head on given vectors.
    #[must_use]
    pub fn trunk(&self) -> Option<&Trunk> {
        self.trunk.as_ref()
    }

    /// The network without its trunk, and the trunk. What is left embeds pooled features only; walking over it costs next to
    /// nothing, which is most of a step of a linear head.
    pub(crate) fn take_trunk(mut self) -> (Self, Option<Trunk>) {
        let trunk = self.trunk.take();
        (self, trunk)
    }

    /// The network with the trunk that was taken out of it.
    pub(crate) fn with_trunk(self, trunk: Trunk) -> Self {
        Self {
            trunk: Some(trunk),
            ..self
        }
    }

    /// Only a trainer takes a trunk out, and then shows the network pooled features; without a trunk there are vectors
    /// ([`Images::new`](crate::train::embed::Images::new) refuses images).
    fn present_trunk(&self) -> &Trunk {
        self.trunk
            .as_ref()
            .expect("images are given to a network whose trunk was taken out")
    }

    /// The same network of which only the last blocks are trained: none given, all; `Some(0)`, only the head.
    #[must_use]
    pub fn with_trainable_blocks(self, trainable: Option<usize>) -> Self {
        let blocks = self.blocks();
        Self {
            frozen_blocks: blocks - trainable.unwrap_or(blocks).min(blocks),
            ..self
        }
    }

    /// The same network whose batch normalisations keep their scale and shift: they have no gradient, so that no time goes
    /// into it. With `freeze-batch-norm` batch normalisation is then not trained at all, as in Proxy-Anchor's released code.
    #[must_use]
    pub fn with_fixed_scales(self) -> Self {
        /// For every level on the way to a parameter: whether it is a scale or a shift.
        #[derive(Default)]
        struct Fixed(Vec<bool>);
        impl ModuleMapper for Fixed {
            fn enter_module(&mut self, name: &str, container: &str) {
                self.0
                    .push(container == "Struct:BatchNorm" && matches!(name, "weight" | "bias"));
            }

            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.0.pop();
            }

            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if self.0.last() == Some(&true) {
                    param.set_require_grad(false)
                } else {
                    param
                }
            }
        }
        self.map(&mut Fixed::default())
    }

    /// Number of the last blocks of the trunk that are trained.
    #[must_use]
    pub fn trainable_blocks(&self) -> usize {
        self.blocks() - self.frozen_blocks
    }

    /// The normalisation of images that the weights expect: the file's if it states one, else the backbone's.
    #[must_use]
    pub fn expected_normalisation(&self) -> Normalisation {
        self.normalisation
    }

    /// Whether an optimiser may change a parameter, by its dotted path inside the embedder, for example
    /// `trunk.layer1.0.conv1.weight`. Running statistics never, frozen blocks not; the pooling's parameter goes with
    /// the last block.
    #[must_use]
    pub fn is_trainable(&self, path: &str) -> bool {
        !(path.ends_with(".running_mean") || path.ends_with(".running_var") || self.is_frozen(path))
    }

    /// Whether a parameter or running statistic belongs to a part that training leaves as it is.
    #[must_use]
    pub fn is_frozen(&self, path: &str) -> bool {
        if path.starts_with("pooling.") {
            return self.frozen_blocks >= self.blocks();
        }
        let Some(name) = path.strip_prefix("trunk.") else {
            return false;
        };
        let Some(trunk) = &self.trunk else {
            return true;
        };
        // Burn's own paths carry the variant of the enum, which starts with a capital; no field does.
        let name = match name.split_once('.') {
            Some((variant, rest)) if variant.starts_with(char::is_uppercase) => rest,
            _ => name,
        };
        trunk
            .backbone()
            .block_of(name)
            .is_some_and(|block| block < self.frozen_blocks)
    }
}

/// A map averaged to at most `grid` x `grid` positions, flattened.
fn on_grid(map: Tensor<4>, grid: usize) -> Tensor<2> {
    let [_, _, height, width] = map.dims();
    let map = if height > grid || width > grid {
        adaptive_avg_pool2d(map, [height.min(grid), width.min(grid)])
    } else {
        map
    };
    map.flatten(1, 3)
}
