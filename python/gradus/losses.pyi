"""Every loss of ``gradus list losses``: value and gradient on arrays."""

# Written by tools/python/stubs.py.

from collections.abc import Mapping, Sequence
from typing import Any

from ._gradus import Loss as Loss
from ._gradus import LossResult as LossResult

_Setting = str | float | Mapping[str, Any] | Sequence[Any]

class Adaface(Loss):
    """softmax over angles with a margin that follows the length of the embedding (Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR, 2022)."""

    def __new__(
        cls,
        *,
        margin: float = 0.4,
        scale: float = 64.0,
        h: float = 0.333,
        t_alpha: float = 0.01,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Adaface: ...

class Angular(Loss):
    """negatives outside the cone that a positive pair spans (Wang et al., Deep Metric Learning with Angular Loss, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        alpha: float = 40.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Angular: ...

class Arcface(Loss):
    """softmax over angles to class weights, with an angular margin (Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        margin: float = 28.6,
        scale: float = 64.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Arcface: ...

class CentroidTriplet(Loss):
    """anchors closer to the centroid of their class than to those of others, by a margin (Wieczorek et al., On the Unreasonable Effectiveness of Centroids in Image Retrieval, ICONIP, 2021)."""

    def __new__(
        cls,
        *,
        margin: float = 0.3,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> CentroidTriplet: ...

class Circle(Loss):
    """pairs weighed by how far they are from their optimum (Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR, 2020)."""

    def __new__(
        cls,
        *,
        m: float = 0.4,
        gamma: float = 80.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Circle: ...

class Contrastive(Loss):
    """positives within one margin, negatives beyond another (Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR, 2006)."""

    def __new__(
        cls,
        *,
        pos_margin: float = 0.0,
        neg_margin: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Contrastive: ...

class Cosface(Loss):
    """softmax over cosines to class weights, with a cosine margin (Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR, 2018)."""

    def __new__(
        cls,
        *,
        margin: float = 0.35,
        scale: float = 64.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Cosface: ...

class Curricularface(Loss):
    """ArcFace whose hard negatives weigh more as training goes on (Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition, CVPR, 2020)."""

    def __new__(
        cls,
        *,
        margin: float = 28.64788975654116,
        scale: float = 64.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Curricularface: ...

class DynamicSoftMargin(Loss):
    """triplets weighed by their rank among the differences of distances seen so far (Zhang and Rusinkiewicz, Learning Local Descriptors with a CDF-Based Dynamic Soft Margin, ICCV, 2019)."""

    def __new__(
        cls,
        *,
        min_val: float = -2.0,
        num_bins: int = 10,
        momentum: float = 0.01,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> DynamicSoftMargin: ...

class FastAp(Loss):
    """one minus the average precision, from soft histograms of distances (Cakir et al., Deep Metric Learning to Rank, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        num_bins: int = 10,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> FastAp: ...

class GeneralizedLiftedStructure(Loss):
    """each anchor's positives against its negatives, both under a soft maximum (Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv, 2017)."""

    def __new__(
        cls,
        *,
        neg_margin: float = 1.0,
        pos_margin: float = 0.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> GeneralizedLiftedStructure: ...

class Histogram(Loss):
    """the probability that a negative pair is more alike than a positive one (Ustinova and Lempitsky, Learning Deep Embeddings with Histogram Loss, NeurIPS, 2016)."""

    def __new__(
        cls,
        *,
        n_bins: int = 100,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Histogram: ...

class Instance(Loss):
    """softmax over cosines within the batch, the label's rank as the wanted column (for parity) (Zheng et al., Dual-Path Convolutional Image-Text Embeddings with Instance Loss, TOMM, 2020)."""

    def __new__(
        cls,
        *,
        gamma: float = 64.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Instance: ...

class IntraPairVariance(Loss):
    """positive pairs as similar as their mean, negative pairs as dissimilar as theirs (Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV, 2019)."""

    def __new__(
        cls,
        *,
        pos_eps: float = 0.01,
        neg_eps: float = 0.01,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> IntraPairVariance: ...

class LargeMarginSoftmax(Loss):
    """softmax with a multiplied angle to the own class, lengths of both sides kept (Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML, 2016)."""

    def __new__(
        cls,
        *,
        margin: int = 4,
        scale: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> LargeMarginSoftmax: ...

class LiftedStructure(Loss):
    """each positive pair against a soft maximum over the negatives of both its items (Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR, 2016)."""

    def __new__(
        cls,
        *,
        neg_margin: float = 1.0,
        pos_margin: float = 0.0,
        compat: str = "paper",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> LiftedStructure: ...

class Manifold(Loss):
    """random-walk similarity to the proxies of meta-classes, of items and of their neighbourhoods (Aziere and Todorovic, Ensemble Deep Manifold Similarity Learning using Hard Proxies, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        k: int = 50,
        lambda_c: float = 1.0,
        alpha: float = 0.8,
        margin: float = 0.0005,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Manifold: ...

class Margin(Loss):
    """positives inside, negatives outside a (learnable) boundary distance (Wu et al., Sampling Matters in Deep Embedding Learning, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        learn_beta: bool = False,
        beta_per_class: bool = False,
        nu: float = 0.0,
        triplets_per_anchor: str = "all",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Margin: ...

class Matryoshka(Loss):
    """another loss on the first axes of the embeddings, for several widths (Kusupati et al., Matryoshka Representation Learning, NeurIPS, 2022)."""

    def __new__(
        cls,
        *,
        loss: _Setting = ...,
        widths: _Setting = ...,
        weights: _Setting = ...,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Matryoshka: ...

class MultiSimilarity(Loss):
    """each anchor's positives and negatives under two soft maxima (Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> MultiSimilarity: ...

class MultipleLosses(Loss):
    """weighted sum of several losses (Musgrave et al., PyTorch Metric Learning, arXiv, 2020)."""

    def __new__(
        cls,
        *,
        losses: _Setting = ...,
        weights: _Setting = ...,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> MultipleLosses: ...

class NPairs(Loss):
    """one positive pair per class, each told from the positives of the other classes (Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS, 2016)."""

    def __new__(
        cls,
        *,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> NPairs: ...

class Nca(Loss):
    """the probability that a neighbour drawn by distance is of the own class (Goldberger et al., Neighbourhood Components Analysis, NeurIPS, 2004)."""

    def __new__(
        cls,
        *,
        softmax_scale: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Nca: ...

class NormalizedSoftmax(Loss):
    """softmax over cosines to class weights (Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC, 2019)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.05,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> NormalizedSoftmax: ...

class NtXent(Loss):
    """cross entropy of each positive pair against its anchor's negatives (InfoNCE) (Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS, 2016)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.07,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> NtXent: ...

class P2sGrad(Loss):
    """squared error between cosines to class weights and the one-hot label (Zhang et al., P2SGrad: Refined Gradients for Optimizing Deep Face Models, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> P2sGrad: ...

class Pnp(Loss):
    """the number of negatives ranked before each positive, under one of five penalties (Li et al., Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before Positive Ones is Enough, AAAI, 2022)."""

    def __new__(
        cls,
        *,
        b: float = 2.0,
        alpha: float = 1.0,
        anneal: float = 0.01,
        variant: str = "O",
        compat: str = "pml",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Pnp: ...

class ProxyAnchor(Loss):
    """learned proxies as anchors, soft-max weighted over the batch (Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR, 2020)."""

    def __new__(
        cls,
        *,
        alpha: float = 32.0,
        margin: float = 0.1,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> ProxyAnchor: ...

class ProxyNca(Loss):
    """softmax over squared distances to proxies, the own proxy in the denominator (Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        softmax_scale: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> ProxyNca: ...

class ProxyNcaOriginal(Loss):
    """squared distance to the own proxy against the soft minimum over all others (Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        softmax_scale: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> ProxyNcaOriginal: ...

class ProxyNcaPlusPlus(Loss):
    """softmax over squared distances to proxies at a low temperature (Teh et al., ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis, ECCV, 2020)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.1111111111111111,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> ProxyNcaPlusPlus: ...

class Quadruplet(Loss):
    """triplets, and positive pairs closer than pairs of two other classes (Chen et al., Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-Identification, CVPR, 2017)."""

    def __new__(
        cls,
        *,
        margin: float = 1.0,
        second_margin: float = 0.5,
        triplets_per_anchor: str = "all",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Quadruplet: ...

class RankedList(Loss):
    """positives inside a ball around the anchor, negatives outside a larger one, the worst first (Wang et al., Ranked List Loss for Deep Metric Learning, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        margin: float = 0.4,
        tn: float = 10.0,
        imbalance: float = 0.5,
        tp: float = 0.0,
        compat: str = "pml",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> RankedList: ...

class RecallAtK(Loss):
    """one minus the share of positives among the first k, with soft ranks (Patel et al., Recall@k Surrogate Loss with Large Batches and Similarity Mixup, CVPR, 2022)."""

    def __new__(
        cls,
        *,
        k: _Setting = ...,
        temperature: float = 0.01,
        rank_temperature: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> RecallAtK: ...

class Roadmap(Loss):
    """an upper bound of one minus the average precision, with calibrated similarities (Ramzi et al., Robust and Decomposable Average Precision for Image Retrieval, NeurIPS, 2021)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.01,
        rho: float = 100.0,
        delta: float = 0.05,
        lambda_: float = 0.5,
        alpha: float = 0.9,
        beta: float = 0.6,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Roadmap: ...

class SelfSupervised(Loss):
    """another loss on two views, every item a class of its own (Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML, 2020)."""

    def __new__(
        cls,
        *,
        loss: _Setting = ...,
        symmetric: bool = True,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SelfSupervised: ...

class SignalToNoiseRatioContrastive(Loss):
    """contrastive loss on the variance of the difference over the variance of the anchor (Yuan et al., Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        pos_margin: float = 0.0,
        neg_margin: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SignalToNoiseRatioContrastive: ...

class SmoothAp(Loss):
    """one minus the average precision with soft ranks (Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, ECCV, 2020)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.01,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SmoothAp: ...

class SoftTriple(Loss):
    """softmax over classes with several softly averaged centres each (Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV, 2019)."""

    def __new__(
        cls,
        *,
        centers_per_class: int = 10,
        la: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SoftTriple: ...

class Sphereface(Loss):
    """softmax with a multiplied angle to the own class, weights of length 1 (Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR, 2017)."""

    def __new__(
        cls,
        *,
        margin: int = 4,
        scale: float = 1.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> Sphereface: ...

class SubCenterArcface(Loss):
    """ArcFace against the nearest of several weights per class (Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces, ECCV, 2020)."""

    def __new__(
        cls,
        *,
        margin: float = 28.6,
        scale: float = 64.0,
        sub_centers: int = 3,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SubCenterArcface: ...

class SupCon(Loss):
    """the positives of an anchor under one softmax over all others; shared labels weigh (Khosla et al., Supervised Contrastive Learning, NeurIPS, 2020)."""

    def __new__(
        cls,
        *,
        temperature: float = 0.1,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> SupCon: ...

class ThresholdConsistentMargin(Loss):
    """positive pairs above one cosine and negative pairs below another, over all classes alike (Zhang et al., Threshold-Consistent Margin Loss for Open-World Deep Metric Learning, ICLR, 2024)."""

    def __new__(
        cls,
        *,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float = 0.9,
        margin_minus: float = 0.5,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> ThresholdConsistentMargin: ...

class TripletMargin(Loss):
    """positives closer than negatives by a margin, over all triplets (Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR, 2015)."""

    def __new__(
        cls,
        *,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: str = "all",
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> TripletMargin: ...

class TupletMargin(Loss):
    """each positive pair, with slack in its angle, against all negatives of its anchor (Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV, 2019)."""

    def __new__(
        cls,
        *,
        margin: float = 5.73,
        scale: float = 64.0,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> TupletMargin: ...

class VicReg(Loss):
    """two views: squared difference, standard deviation of axes below 1, covariance (Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR, 2022)."""

    def __new__(
        cls,
        *,
        invariance_lambda: float = 25.0,
        variance_mu: float = 25.0,
        covariance_v: float = 1.0,
        eps: float = 0.0001,
        distance: _Setting | None = None,
        reducer: _Setting | None = None,
        embedding_regularizer: _Setting | None = None,
        embedding_reg_weight: float = 1.0,
        weight_regularizer: _Setting | None = None,
        weight_reg_weight: float = 1.0,
        classes: int | None = None,
        seed: int = 0,
    ) -> VicReg: ...
