"""Every miner of ``gradus list miners``: which pairs or triplets a loss should look at."""

# Written by tools/python/stubs.py.

from collections.abc import Mapping, Sequence
from typing import Any

from ._gradus import Miner as Miner

_Setting = str | float | Mapping[str, Any] | Sequence[Any]

class Angular(Miner):
    """triplets whose angle at the negative is wider than a bound (Wang et al., Deep Metric Learning with Angular Loss, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        angle: float = 20.0,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> Angular: ...

class BatchEasyHard(Miner):
    """per anchor the easy, hard or semihard positive and negative (Xuan et al., Improved Embeddings with Easy Positive Triplet Mining, WACV, 2020)."""

    def __new__(
        cls,
        *,
        pos_strategy: str = "easy",
        neg_strategy: str = "semihard",
        distance: _Setting = ...,
        seed: int = 0,
    ) -> BatchEasyHard: ...

class BatchHard(Miner):
    """triplets of each anchor, its farthest positive and its nearest negative (Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv, 2017)."""

    def __new__(
        cls,
        *,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> BatchHard: ...

class DistanceWeighted(Miner):
    """random triplets, with negatives spread evenly over distances (Wu et al., Sampling Matters in Deep Embedding Learning, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        cutoff: float = 0.5,
        nonzero_loss_cutoff: float = 1.4,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> DistanceWeighted: ...

class EmbeddingsAlreadyPackagedAsTriplets(Miner):
    """rows 3i, 3i + 1 and 3i + 2 are anchor, positive and negative (Musgrave et al., PyTorch Metric Learning, arXiv, 2020)."""

    def __new__(
        cls,
        *,
        seed: int = 0,
    ) -> EmbeddingsAlreadyPackagedAsTriplets: ...

class Hdc(Miner):
    """the hardest share of all positive pairs and of all negative pairs (Yuan et al., Hard-Aware Deeply Cascaded Embedding, ICCV, 2017)."""

    def __new__(
        cls,
        *,
        filter_percentage: float = 0.5,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> Hdc: ...

class MultiSimilarity(Miner):
    """pairs that are hard in comparison with the hardest pair of the other kind (Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR, 2019)."""

    def __new__(
        cls,
        *,
        epsilon: float = 0.1,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> MultiSimilarity: ...

class PairMargin(Miner):
    """positive pairs beyond a margin, negative pairs within another (Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR, 2006)."""

    def __new__(
        cls,
        *,
        pos_margin: float = 0.2,
        neg_margin: float = 0.8,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> PairMargin: ...

class RhoRegularization(Miner):
    """another miner's choice with some negatives swapped for members of the class (Roth et al., Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML, 2020)."""

    def __new__(
        cls,
        *,
        probability: float = 0.2,
        miner: _Setting = ...,
        seed: int = 0,
    ) -> RhoRegularization: ...

class TripletMargin(Miner):
    """all, hard, semihard or easy triplets of a margin (Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR, 2015)."""

    def __new__(
        cls,
        *,
        margin: float = 0.2,
        type_of_triplets: str = "all",
        distance: _Setting = ...,
        seed: int = 0,
    ) -> TripletMargin: ...

class UniformHistogram(Miner):
    """random pairs, equally many of every stretch of distance (Musgrave et al., PyTorch Metric Learning, arXiv, 2020)."""

    def __new__(
        cls,
        *,
        num_bins: int = 100,
        pos_per_bin: int = 10,
        neg_per_bin: int = 10,
        distance: _Setting = ...,
        seed: int = 0,
    ) -> UniformHistogram: ...
