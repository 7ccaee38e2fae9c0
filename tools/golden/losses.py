"""Writes tests/golden/losses.json: values and gradients of losses by pytorch-metric-learning, in double precision.

Usage: pip install torch pytorch-metric-learning numpy && python tools/golden/losses.py
A loss is one line or a few in `cases`: our name, our settings, the reference's class and its arguments. Every case without
a batch of its own runs on all of BATCHES; the file records versions and seed, so that a difference can be traced.
"""

import json
import math
import pathlib
import sys

import numpy
import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, reducers, regularizers

SEED = 20240
DIM, CLASSES = 6, 4
BATCHES = {
    "mixed": [0, 1, 2, 0, 1, 2, 0, 2, 1, 0, 0, 2],  # class 3 is absent: its proxy has no positive
    "lone": [1, 1, 3, 1, 1],  # one item without a positive
    "one-class": [2, 2, 2, 2],
    "apart": [0, 1, 2, 3],
}
SQUARE = [0, 0, 0, 1, 1, 1, 2, 2, 2]  # as many items per class as classes: all that the reference's Smooth-AP gets right
REFERENCES = [0, 1, 1, 2, 0, 3, 2]  # a separate set for the anchors of "mixed"
MINED = {  # choices among "mixed", with repetitions
    "triplets": [[0, 3, 1], [0, 3, 2], [0, 6, 1], [0, 3, 1], [1, 4, 0], [2, 7, 4], [11, 5, 9]],
    "pairs": {
        "positive": [[0, 3], [0, 9], [1, 8], [1, 8], [2, 5], [5, 11]],
        "negative": [[0, 1], [0, 2], [1, 6], [2, 3], [2, 3], [7, 4]],
    },
    "square": [[0, 1, 3], [0, 2, 8], [4, 3, 1]],
}
SINGLE, RENORM = torch.Tensor.float, torch.Tensor.renorm
SIZE = {"num_classes": CLASSES, "embedding_size": DIM}
WEIGHTS = [0.5, 2.0, 1.5, 0.25]


class Published(torch.nn.Module):
    """A loss that the reference does not have, written from its paper: a table of proxies and mean cross entropy."""

    def __init__(self):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.zeros(CLASSES, DIM))

    def cosines(self, rows):
        return torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(self.proxies).T


class Matryoshka(torch.nn.Module):
    """Kusupati et al. 2022: the same loss on the first axes, for several widths with weights."""

    def __init__(self, loss, parts):
        super().__init__()
        self.loss, self.parts = loss, parts

    def forward(self, rows, labels):
        return sum(weight * self.loss(rows[:, :width], labels) for width, weight in self.parts)


class ProxyNca(Published):
    """Movshovitz-Attias et al. 2017 without the own proxy in the denominator, Teh et al. 2020 with it."""

    def __init__(self, scale=1.0, with_own=True):
        super().__init__()
        self.scale, self.with_own = scale, with_own

    def forward(self, rows, labels):
        costs = []
        for row, label in zip(torch.nn.functional.normalize(rows), labels):
            similar = torch.exp(-self.scale * (row - torch.nn.functional.normalize(self.proxies)).square().sum(1))
            others = [similar[c] for c in range(CLASSES) if self.with_own or c != label]
            costs.append(-torch.log(similar[label] / sum(others)))
        return torch.stack(costs).mean()


class CurricularFace(Published):
    """Huang et al. 2020, the first step: t starts at 0."""

    def __init__(self, margin=math.degrees(0.5), scale=64.0):
        super().__init__()
        self.margin, self.scale = math.radians(margin), scale

    def forward(self, rows, labels):
        cosines = self.cosines(rows)
        own = cosines[torch.arange(len(labels)), labels]
        t = 0.01 * own.detach().mean()
        logits = []
        for row, label in zip(cosines, labels):
            theta = torch.acos(row[label])
            moved = torch.cos(theta + self.margin)
            target = moved if theta + self.margin < math.pi else row[label] - self.margin * math.sin(self.margin)
            entries = [
                target if c == label else row[c] * (t + row[c]) if row[c] > moved else row[c] for c in range(CLASSES)
            ]
            logits.append(torch.stack(entries))
        return torch.nn.functional.cross_entropy(self.scale * torch.stack(logits), labels)


class AdaFace(Published):
    """Kim et al. 2022, the first step: mean and deviation of lengths start at 20 and 100."""

    def __init__(self, margin=0.4, scale=64.0, h=0.333, t_alpha=0.01):
        super().__init__()
        self.margin, self.scale, self.h, self.t_alpha = margin, scale, h, t_alpha

    def forward(self, rows, labels):
        lengths = rows.detach().norm(dim=1).clamp(1e-3, 100)
        mean = self.t_alpha * lengths.mean() + (1 - self.t_alpha) * 20
        deviation = self.t_alpha * lengths.std() + (1 - self.t_alpha) * 100
        quality = (self.h * (lengths - mean) / (deviation + 1e-3)).clamp(-1, 1)
        wanted = torch.nn.functional.one_hot(labels, CLASSES).bool()
        theta = torch.acos(self.cosines(rows))
        moved = (theta - self.margin * quality[:, None]).clamp(1e-3, math.pi - 1e-3)
        logits = torch.where(wanted, torch.cos(moved) - self.margin * (1 + quality[:, None]), torch.cos(theta))
        return torch.nn.functional.cross_entropy(self.scale * logits, labels)


def cases():
    """(our name, our settings, reference class, its arguments[, where]); settings left out are defaults on both sides.

    `where` may hold `batch` (one of BATCHES, "references" or "views") and `mined` (one of MINED).
    """
    # --- one block per loss, sorted by our name -------------------------------------------------------------------------
    yield "angular", {}, losses.AngularLoss, {}
    yield "angular", {"alpha": 55.0}, losses.AngularLoss, {"alpha": 55}
    yield from everywhere("angular", {}, losses.AngularLoss, {})
    yield "adaface", {}, AdaFace, {}
    yield "adaface", {"h": 5.0, "margin": 0.6, "scale": 8.0, "t-alpha": 1.0}, AdaFace, {"h": 5.0, "margin": 0.6, "scale": 8.0, "t_alpha": 1.0}
    yield "arcface", {}, losses.ArcFaceLoss, SIZE
    yield "arcface", {"margin": 70.0, "scale": 10.0}, losses.ArcFaceLoss, {**SIZE, "margin": 70.0, "scale": 10.0}
    yield "arcface", {}, losses.ArcFaceLoss, SIZE, {"mined": "triplets"}
    yield "circle", {}, losses.CircleLoss, {}
    yield "circle", {"m": 0.25, "gamma": 5.0}, losses.CircleLoss, {"m": 0.25, "gamma": 5}
    yield from everywhere("circle", {}, losses.CircleLoss, {})
    yield "contrastive", {}, losses.ContrastiveLoss, {}
    yield "contrastive", {"pos-margin": 0.4, "neg-margin": 1.5}, losses.ContrastiveLoss, {"pos_margin": 0.4, "neg_margin": 1.5}
    yield from everywhere("contrastive", {}, losses.ContrastiveLoss, {})
    yield "fast-ap", {}, losses.FastAPLoss, {}
    yield "fast-ap", {"num-bins": 25}, losses.FastAPLoss, {"num_bins": 25}
    yield from mined("fast-ap", {}, losses.FastAPLoss, {})
    yield "generalized-lifted-structure", {}, losses.GeneralizedLiftedStructureLoss, {}
    yield "generalized-lifted-structure", {"neg-margin": 1.5, "pos-margin": 0.2}, losses.GeneralizedLiftedStructureLoss, {"neg_margin": 1.5, "pos_margin": 0.2}
    yield from everywhere("generalized-lifted-structure", {}, losses.GeneralizedLiftedStructureLoss, {})
    yield "histogram", {}, losses.HistogramLoss, {}
    yield "histogram", {"n-bins": 16}, losses.HistogramLoss, {"n_bins": 16}
    yield "histogram", {"delta": 0.125}, losses.HistogramLoss, {"delta": 0.125}
    yield from mined("histogram", {}, losses.HistogramLoss, {})
    yield "intra-pair-variance", {}, losses.IntraPairVarianceLoss, {}
    yield "intra-pair-variance", {"pos-eps": 0.2, "neg-eps": 0.1}, losses.IntraPairVarianceLoss, {"pos_eps": 0.2, "neg_eps": 0.1}
    yield from everywhere("intra-pair-variance", {}, losses.IntraPairVarianceLoss, {})
    yield "lifted-structure", {}, losses.LiftedStructureLoss, {}
    yield "lifted-structure", {"neg-margin": 1.5, "pos-margin": 0.2}, losses.LiftedStructureLoss, {"neg_margin": 1.5, "pos_margin": 0.2}
    yield from everywhere("lifted-structure", {"compat": "pml"}, losses.LiftedStructureLoss, {})
    yield "manifold", {}, losses.ManifoldLoss, {"l": DIM}
    yield (
        "manifold",
        {"l": DIM, "k": 4, "lambda-c": 0.5, "alpha": 0.6, "margin": 0.01},
        losses.ManifoldLoss,
        {"l": DIM, "K": 4, "lambdaC": 0.5, "alpha": 0.6, "margin": 0.01},
    )
    yield "large-margin-softmax", {}, losses.LargeMarginSoftmaxLoss, SIZE
    yield "large-margin-softmax", {"margin": 3, "scale": 0.5}, losses.LargeMarginSoftmaxLoss, {**SIZE, "margin": 3, "scale": 0.5}
    yield "large-margin-softmax", {}, losses.LargeMarginSoftmaxLoss, SIZE, {"mined": "pairs"}
    yield "instance", {}, losses.InstanceLoss, {}
    yield "instance", {"gamma": 5.0}, losses.InstanceLoss, {"gamma": 5.0}
    yield "dynamic-soft-margin", {}, losses.DynamicSoftMarginLoss, {}
    yield "dynamic-soft-margin", {"num-bins": 25, "min-val": -2.5}, losses.DynamicSoftMarginLoss, {"num_bins": 25, "min_val": -2.5}
    yield from everywhere("dynamic-soft-margin", {}, losses.DynamicSoftMarginLoss, {})
    yield "curricularface", {}, CurricularFace, {}
    yield "curricularface", {"margin": 70.0, "scale": 8.0}, CurricularFace, {"margin": 70.0, "scale": 8.0}
    yield "cosface", {}, losses.CosFaceLoss, SIZE
    yield "cosface", {"margin": 0.1, "scale": 10.0}, losses.CosFaceLoss, {**SIZE, "margin": 0.1, "scale": 10.0}
    yield "cosface", {}, losses.CosFaceLoss, SIZE, {"mined": "triplets"}
    yield "margin", {}, losses.MarginLoss, {}
    yield "margin", {"beta": 1.25, "learn-beta": True, "nu": 0.05}, losses.MarginLoss, {"beta": 1.25, "learn_beta": True, "nu": 0.05}
    yield (
        "margin",
        {"beta": 1.125, "margin": 0.3, "learn-beta": True, "beta-per-class": True, "nu": 0.1},
        losses.MarginLoss,
        {"beta": 1.125, "margin": 0.3, "learn_beta": True, "num_classes": CLASSES, "nu": 0.1},
    )
    yield from everywhere("margin", {}, losses.MarginLoss, {})
    yield "matryoshka", {"widths": [6, 3]}, Matryoshka, {"loss": losses.MultiSimilarityLoss(), "parts": [(6, 1), (3, 1)]}
    yield (
        "matryoshka",
        {"widths": [2, 5], "weights": [0.5, 2.0], "loss": {"contrastive": {"distance": "cosine", "pos-margin": 1.0, "neg-margin": 0.2}}},
        Matryoshka,
        {"loss": losses.ContrastiveLoss(1.0, 0.2, distance=distances.CosineSimilarity()), "parts": [(2, 0.5), (5, 2)]},
    )
    yield "multi-similarity", {}, losses.MultiSimilarityLoss, {}
    yield "multi-similarity", {"alpha": 5.0, "beta": 20.0, "base": 0.1}, losses.MultiSimilarityLoss, {"alpha": 5.0, "beta": 20.0, "base": 0.1}
    yield from everywhere("multi-similarity", {}, losses.MultiSimilarityLoss, {})
    yield "n-pairs", {}, losses.NPairsLoss, {}
    yield from mined("n-pairs", {}, losses.NPairsLoss, {})
    yield "nca", {}, losses.NCALoss, {}
    yield "nca", {"softmax-scale": 5.0}, losses.NCALoss, {"softmax_scale": 5}
    yield from everywhere("nca", {}, losses.NCALoss, {})
    yield "nt-xent", {}, losses.NTXentLoss, {}
    yield "nt-xent", {"temperature": 0.5}, losses.NTXentLoss, {"temperature": 0.5}
    yield from everywhere("nt-xent", {}, losses.NTXentLoss, {})
    for variant in ["O", "Ds", "Dq", "Iu", "Ib"]:
        settings = {"variant": variant, "compat": "pml"}
        yield "pnp", settings, losses.PNPLoss, {"variant": variant}
        yield "pnp", {**settings, "anneal": 0.2, "b": 3.0, "alpha": 2.0}, losses.PNPLoss, {"variant": variant, "anneal": 0.2, "b": 3, "alpha": 2}
    yield "proxy-anchor", {}, losses.ProxyAnchorLoss, SIZE
    yield "proxy-anchor", {"alpha": 8.0, "margin": 0.3}, losses.ProxyAnchorLoss, {**SIZE, "alpha": 8.0, "margin": 0.3}
    yield "proxy-anchor", {}, losses.ProxyAnchorLoss, SIZE, {"mined": "pairs"}
    ranked = {"margin": 0.4, "tn": 10.0, "compat": "pml"}
    yield "ranked-list", ranked, losses.RankedListLoss, {"margin": 0.4, "Tn": 10}
    ranked = {"margin": 0.6, "tn": 2.0, "tp": 1.5, "alpha": 1.1, "imbalance": 0.25, "compat": "pml"}
    yield "ranked-list", ranked, losses.RankedListLoss, {"margin": 0.6, "Tn": 2, "Tp": 1.5, "alpha": 1.1, "imbalance": 0.25}
    yield "signal-to-noise-ratio-contrastive", {}, losses.SignalToNoiseRatioContrastiveLoss, {}
    yield "signal-to-noise-ratio-contrastive", {"pos-margin": 0.3, "neg-margin": 2.0}, losses.SignalToNoiseRatioContrastiveLoss, {"pos_margin": 0.3, "neg_margin": 2}
    yield from everywhere("signal-to-noise-ratio-contrastive", {}, losses.SignalToNoiseRatioContrastiveLoss, {})
    yield "smooth-ap", {}, losses.SmoothAPLoss, {}, {"batch": "square"}
    yield "smooth-ap", {"temperature": 0.2}, losses.SmoothAPLoss, {"temperature": 0.2}, {"batch": "square"}
    yield "smooth-ap", {"temperature": 0.2}, losses.SmoothAPLoss, {"temperature": 0.2}, {"batch": "square", "mined": "square"}
    yield "sup-con", {}, losses.SupConLoss, {}
    yield "sup-con", {"temperature": 0.5}, losses.SupConLoss, {"temperature": 0.5}
    yield from everywhere("sup-con", {}, losses.SupConLoss, {})
    yield "threshold-consistent-margin", {}, losses.ThresholdConsistentMarginLoss, {}
    settings = {"lambda-plus": 2.0, "lambda-minus": 0.5, "margin-plus": 0.3, "margin-minus": -0.2}
    yield "threshold-consistent-margin", settings, losses.ThresholdConsistentMarginLoss, {key.replace("-", "_"): value for key, value in settings.items()}
    yield from mined("threshold-consistent-margin", {}, losses.ThresholdConsistentMarginLoss, {})
    yield "multiple-losses", {}, losses.MultipleLosses, {"losses": [losses.MultiSimilarityLoss(), losses.ContrastiveLoss()]}
    yield (
        "multiple-losses",
        {"losses": [{"triplet-margin": {"margin": 0.5}}, {"nt-xent": {}}], "weights": [0.5, 2.0]},
        losses.MultipleLosses,
        {"losses": [losses.TripletMarginLoss(margin=0.5), losses.NTXentLoss()], "weights": [0.5, 2.0]},
    )
    yield "normalized-softmax", {}, losses.NormalizedSoftmaxLoss, SIZE
    yield "normalized-softmax", {"temperature": 0.3}, losses.NormalizedSoftmaxLoss, {**SIZE, "temperature": 0.3}
    yield "normalized-softmax", {}, losses.NormalizedSoftmaxLoss, SIZE, {"mined": "triplets"}
    for ours, theirs in [
        ("dot", distances.DotProductSimilarity()),
        ({"dot": {"normalize": False}}, distances.DotProductSimilarity(normalize_embeddings=False)),
        ({"lp": {}}, distances.LpDistance()),
        ({"lp": {"power": 2.0, "normalize": False}}, distances.LpDistance(power=2, normalize_embeddings=False)),
    ]:
        yield "normalized-softmax", {"temperature": 0.3, "distance": ours}, losses.NormalizedSoftmaxLoss, {**SIZE, "temperature": 0.3, "distance": theirs}, {"batch": "mixed"}
    yield "p2s-grad", {}, losses.P2SGradLoss, {"descriptors_dim": DIM, "num_classes": CLASSES}
    yield "sub-center-arcface", {}, losses.SubCenterArcFaceLoss, SIZE
    yield (
        "sub-center-arcface",
        {"margin": 70.0, "scale": 10.0, "sub-centers": 2},
        losses.SubCenterArcFaceLoss,
        {**SIZE, "margin": 70.0, "scale": 10.0, "sub_centers": 2},
    )
    yield "sub-center-arcface", {}, losses.SubCenterArcFaceLoss, SIZE, {"mined": "triplets"}
    yield "sphereface", {}, losses.SphereFaceLoss, SIZE
    yield "sphereface", {"margin": 2, "scale": 3.0}, losses.SphereFaceLoss, {**SIZE, "margin": 2, "scale": 3.0}
    yield "sphereface", {}, losses.SphereFaceLoss, SIZE, {"mined": "pairs"}
    yield "self-supervised", {}, losses.SelfSupervisedLoss, {"loss": losses.NTXentLoss()}, {"batch": "views"}
    yield (
        "self-supervised",
        {"symmetric": False, "loss": {"triplet-margin": {"margin": 0.4}}},
        losses.SelfSupervisedLoss,
        {"loss": losses.TripletMarginLoss(margin=0.4), "symmetric": False},
        {"batch": "views"},
    )
    yield "soft-triple", {}, losses.SoftTripleLoss, SIZE
    yield (
        "soft-triple",
        {"centers-per-class": 3, "la": 5.0, "gamma": 0.3, "margin": 0.1},
        losses.SoftTripleLoss,
        {**SIZE, "centers_per_class": 3, "la": 5.0, "gamma": 0.3, "margin": 0.1},
    )
    yield "soft-triple", {}, losses.SoftTripleLoss, SIZE, {"mined": "triplets"}
    yield (
        "soft-triple",
        {"centers-per-class": 3, "weight-regularizer": "sparse-centers", "weight-reg-weight": 0.2},
        losses.SoftTripleLoss,
        {**SIZE, "centers_per_class": 3, "weight_regularizer": regularizers.SparseCentersRegularizer(CLASSES, 3), "weight_reg_weight": 0.2},
        {"batch": "mixed"},
    )
    yield "proxy-nca", {}, losses.ProxyNCALoss, SIZE
    yield "proxy-nca", {"softmax-scale": 7.0}, losses.ProxyNCALoss, {**SIZE, "softmax_scale": 7.0}
    yield "proxy-nca", {}, losses.ProxyNCALoss, SIZE, {"mined": "triplets"}
    yield "proxy-nca", {}, losses.ProxyNCALoss, SIZE, {"mined": "pairs"}
    yield "proxy-nca", {"distance": "cosine"}, losses.ProxyNCALoss, {**SIZE, "distance": distances.CosineSimilarity()}, {"batch": "mixed"}
    yield "proxy-nca-original", {}, ProxyNca, {"with_own": False}
    yield "proxy-nca-original", {"softmax-scale": 7.0}, ProxyNca, {"with_own": False, "scale": 7.0}
    yield "proxy-nca-plus-plus", {}, ProxyNca, {"scale": 9.0}
    yield "proxy-nca-plus-plus", {"temperature": 0.5}, ProxyNca, {"scale": 2.0}
    yield "triplet-margin", {}, losses.TripletMarginLoss, {}
    yield "triplet-margin", {"margin": 0.5, "swap": True}, losses.TripletMarginLoss, {"margin": 0.5, "swap": True}
    yield "triplet-margin", {"margin": 0.1, "smooth-loss": True}, losses.TripletMarginLoss, {"margin": 0.1, "smooth_loss": True}
    yield "triplet-margin", {"swap": True, "smooth-loss": True}, losses.TripletMarginLoss, {"swap": True, "smooth_loss": True}
    yield from everywhere("triplet-margin", {}, losses.TripletMarginLoss, {})
    yield "vic-reg", {}, losses.VICRegLoss, {}, {"batch": "views"}
    yield (
        "vic-reg",
        {"invariance-lambda": 3.0, "variance-mu": 40.0, "covariance-v": 0.5, "eps": 0.01},
        losses.VICRegLoss,
        {"invariance_lambda": 3.0, "variance_mu": 40.0, "covariance_v": 0.5, "eps": 0.01},
        {"batch": "views"},
    )

    yield "tuplet-margin", {}, losses.TupletMarginLoss, {}
    yield "tuplet-margin", {"margin": 20.0, "scale": 4.0}, losses.TupletMarginLoss, {"margin": 20, "scale": 4}
    yield from everywhere("tuplet-margin", {}, losses.TupletMarginLoss, {})

    # --- composition: distances, reducers, regularisers -----------------------------------------------------------------
    mixed = {"batch": "mixed"}
    for ours, theirs in [
        ("cosine", distances.CosineSimilarity()),
        ({"dot": {"normalize": False}}, distances.DotProductSimilarity(normalize_embeddings=False)),
        ({"lp": {"p": 1.0}}, distances.LpDistance(p=1)),
        ({"lp": {"p": 3.0, "power": 2.0, "normalize": False}}, distances.LpDistance(p=3, power=2, normalize_embeddings=False)),
        ({"lp": {"power": 2.0}}, distances.LpDistance(power=2)),
        ("snr", distances.SNRDistance()),
        ({"snr": {"normalize": False}}, distances.SNRDistance(normalize_embeddings=False)),
    ]:
        yield "contrastive", {"pos-margin": 0.7, "neg-margin": 0.6, "distance": ours}, losses.ContrastiveLoss, {"pos_margin": 0.7, "neg_margin": 0.6, "distance": theirs}, mixed
        yield "triplet-margin", {"margin": 0.5, "distance": ours}, losses.TripletMarginLoss, {"margin": 0.5, "distance": theirs}, mixed
        yield "multi-similarity", {"distance": ours}, losses.MultiSimilarityLoss, {"distance": theirs}, mixed
        yield "nt-xent", {"distance": ours}, losses.NTXentLoss, {"distance": theirs}, mixed
    yield "triplet-margin", {"swap": True, "distance": "cosine"}, losses.TripletMarginLoss, {"swap": True, "distance": distances.CosineSimilarity()}, mixed
    for ours, theirs in [
        ("mean", reducers.MeanReducer()),
        ("sum", reducers.SumReducer()),
        ("avg-non-zero", reducers.AvgNonZeroReducer()),
        ({"threshold": {"low": 0.2, "high": 0.6}}, reducers.ThresholdReducer(low=0.2, high=0.6)),
        ({"class-weighted": {"weights": WEIGHTS}}, reducers.ClassWeightedReducer(torch.tensor(WEIGHTS))),
        ("per-anchor", reducers.PerAnchorReducer()),
        ({"per-anchor": {"reducer": "avg-non-zero"}}, reducers.PerAnchorReducer(reducers.AvgNonZeroReducer())),
    ]:
        yield "contrastive", {"reducer": ours}, losses.ContrastiveLoss, {"reducer": theirs}, mixed
        if "class-weighted" not in ours:  # the reference weighs its column of values with a row of weights there
            yield "multi-similarity", {"reducer": ours}, losses.MultiSimilarityLoss, {"reducer": theirs}, mixed
        if "per-anchor" not in ours:
            yield "triplet-margin", {"margin": 0.5, "reducer": ours}, losses.TripletMarginLoss, {"margin": 0.5, "reducer": theirs}, mixed
            yield "margin", {"reducer": ours}, losses.MarginLoss, {"reducer": theirs}, mixed
            yield "margin", {"reducer": ours}, losses.MarginLoss, {"reducer": theirs}, {"batch": "mixed", "mined": "triplets"}
    yield (
        "contrastive",
        {"reducer": {"multiple": {"terms": {"pos-loss": "sum"}}}},
        losses.ContrastiveLoss,
        {"reducer": reducers.MultipleReducers({"pos_loss": reducers.SumReducer()})},
        mixed,
    )
    for ours, theirs in [
        ("lp", regularizers.LpRegularizer()),
        ({"lp": {"p": 1.0, "power": 2.0}}, regularizers.LpRegularizer(p=1, power=2)),
        ("zero-mean", regularizers.ZeroMeanRegularizer()),
        ("center-invariant", regularizers.CenterInvariantRegularizer()),
        ("regular-face", regularizers.RegularFaceRegularizer()),
    ]:
        yield (
            "arcface",
            {"scale": 4.0, "embedding-regularizer": ours, "embedding-reg-weight": 0.3, "weight-regularizer": ours, "weight-reg-weight": 0.7},
            losses.ArcFaceLoss,
            {**SIZE, "scale": 4.0, "embedding_regularizer": theirs, "embedding_reg_weight": 0.3, "weight_regularizer": theirs, "weight_reg_weight": 0.7},
            mixed,
        )


def everywhere(name, settings, loss, arguments):
    """The same loss against a separate reference set, and on mined pairs and triplets."""
    yield name, settings, loss, arguments, {"batch": "references"}
    yield from mined(name, settings, loss, arguments)


def mined(name, settings, loss, arguments):
    """The same loss on mined pairs and triplets."""
    yield name, settings, loss, arguments, {"mined": "pairs"}
    yield name, settings, loss, arguments, {"mined": "triplets"}


def parameters_of(loss):
    """The parameter as rows: a view to read and write, or none."""
    for name, transposed in [("proxies", False), ("W", True), ("fc", True), ("weight", True)]:  # the last three are kept as [dim, rows]
        if isinstance(getattr(loss, name, None), torch.nn.Parameter):
            return getattr(loss, name), transposed
    beta = getattr(loss, "beta", None)
    return (beta, False) if isinstance(beta, torch.nn.Parameter) else (None, False)


def evaluate(name, settings, loss_class, arguments, batch, mined, sets, table):
    torch.manual_seed(0)
    loss = loss_class(**arguments)
    case = {"config": {name: settings}, "batch": batch}
    rows, labels = sets["mixed" if batch in ("references", "views") else batch]
    rows = torch.tensor(rows, requires_grad=True)
    inputs = [rows, torch.tensor(labels)]
    if mined is not None:
        case["mined"] = mined
        choice = MINED[mined]
        if isinstance(choice, list):
            tuples = tuple(torch.tensor(choice).T)
        else:
            tuples = (*torch.tensor(choice["positive"]).T, *torch.tensor(choice["negative"]).T)
        inputs.append(tuples)
    references = None
    if batch == "references":
        references = torch.tensor(sets["references"][0], requires_grad=True)
        inputs += [None] * (3 - len(inputs)) + [references, torch.tensor(sets["references"][1])]
    parameter, transposed = parameters_of(loss)
    if parameter is not None:
        if parameter.ndim == 1:
            parameter.data = parameter.data.double()
            case["parameters"] = [[value] for value in parameter.tolist()]
        else:
            count = parameter.shape[1] if transposed else parameter.shape[0]
            values = torch.tensor(table[:count])
            parameter.data = values.T.clone() if transposed else values
            case["parameters"] = values.tolist()
    if batch == "views":  # two views of the same items, without labels
        references = torch.tensor(sets["views"][0], requires_grad=True)
        inputs = [rows, references] if name == "self-supervised" else [rows, None, None, references]
    if name == "manifold":  # our labels are its meta-classes
        inputs = [rows, None, torch.tensor(labels) % loss.K]
        torch.Tensor.float = torch.Tensor.double  # it inverts in single precision
    if name == "p2s-grad":  # its weights end up 1e-7 short of length 1
        torch.Tensor.renorm = lambda weights, p, dim, most: most * torch.nn.functional.normalize(weights, p, dim=1 - dim)
    value = loss(*inputs)
    value.backward()
    torch.Tensor.float, torch.Tensor.renorm = SINGLE, RENORM
    case["value"] = value.item()
    case["embedding_gradient"] = rows.grad.tolist()
    if references is not None:
        gradient = references.grad if references.grad is not None else torch.zeros_like(references)
        case["reference_gradient"] = gradient.tolist()
    if parameter is not None:
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        gradient = gradient.T if transposed else gradient
        if name == "p2s-grad":  # it renormalises its weights and leaves the slope along them in: take the true slope
            unit = torch.nn.functional.normalize(values, dim=1)
            gradient = (gradient - (gradient * unit).sum(1, keepdim=True) * unit) / values.norm(dim=1, keepdim=True)
        case["parameter_gradient"] = gradient.reshape(len(case["parameters"]), -1).tolist()
    numbers = [case["value"], *rows.grad.flatten().tolist()]
    if not all(math.isfinite(number) for number in numbers):
        print(f"left out, not finite in the reference: {name} {settings} on {batch}")
        return None
    return case


def main():
    torch.set_default_dtype(torch.float64)
    generator = numpy.random.default_rng(SEED)

    def draw(count):
        return (generator.normal(size=(count, DIM)) * generator.uniform(0.5, 2.0, size=(count, 1))).tolist()

    sets = {name: (draw(len(labels)), labels) for name, labels in {**BATCHES, "references": REFERENCES}.items()}
    table = generator.normal(size=(4 * CLASSES, DIM)).tolist()  # enough for a few proxies per class
    sets["square"] = (draw(len(SQUARE)), SQUARE)
    table = generator.normal(size=(60, DIM)).tolist()  # enough for several proxies per class
    sets["views"] = draw(len(sets["mixed"][1])), sets["mixed"][1]
    found = []
    for name, settings, loss_class, arguments, *where in cases():
        where = where[0] if where else {}
        mined = where.get("mined")
        batches = [where["batch"]] if "batch" in where else ["mixed"] if mined else list(BATCHES)
        for batch in batches:
            case = evaluate(name, settings, loss_class, arguments, batch, mined, sets, table)
            if case is not None:
                found.append(case)
    golden = {
        "generator": "tools/golden/losses.py",
        "versions": {
            "python": sys.version.split()[0],
            "pytorch-metric-learning": pytorch_metric_learning.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "seed": SEED,
        "classes": CLASSES,
        "sets": {name: {"embeddings": rows, "labels": labels} for name, (rows, labels) in sets.items()},
        "mined": MINED,
        "cases": found,
    }
    path = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "losses.json"
    # One line per case: short differences when a loss is added.
    head = {key: value for key, value in golden.items() if key != "cases"}
    text = json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(case) for case in found) + "\n]}\n"
    json.loads(text)
    path.write_text(text)
    print(f"{path}: {len(found)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
