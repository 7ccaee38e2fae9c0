"""Writes tests/golden/losses.json: values and gradients of losses by pytorch-metric-learning, in double precision.

Usage: pip install torch pytorch-metric-learning numpy && python tools/golden/losses.py
Every case holds our configuration of the loss; the mapping to the reference's names is below. The file records versions
and seed, so that a difference can be traced.
"""

import json
import pathlib
import sys

import numpy
import pytorch_metric_learning
import torch
from pytorch_metric_learning import losses

SEED = 20240
ROWS, DIM, CLASSES = 12, 6, 4
LABELS = [0, 1, 2, 0, 1, 2, 0, 2, 1, 0, 0, 2]  # class 3 is absent: its proxy has no positive


def cases():
    """(our name, our settings, the reference loss); settings left out are defaults on both sides."""
    size = {"num_classes": CLASSES, "embedding_size": DIM}
    yield "proxy-anchor", {}, losses.ProxyAnchorLoss(**size)
    yield "proxy-anchor", {"alpha": 8.0, "margin": 0.3}, losses.ProxyAnchorLoss(**size, alpha=8.0, margin=0.3)
    yield "multi-similarity", {}, losses.MultiSimilarityLoss()
    yield (
        "multi-similarity",
        {"alpha": 5.0, "beta": 20.0, "base": 0.1},
        losses.MultiSimilarityLoss(alpha=5.0, beta=20.0, base=0.1),
    )
    yield "triplet-margin", {}, losses.TripletMarginLoss()
    yield "triplet-margin", {"margin": 0.5, "swap": True}, losses.TripletMarginLoss(margin=0.5, swap=True)
    yield "triplet-margin", {"margin": 0.1, "smooth": True}, losses.TripletMarginLoss(margin=0.1, smooth_loss=True)
    yield (
        "triplet-margin",
        {"swap": True, "smooth": True},
        losses.TripletMarginLoss(swap=True, smooth_loss=True),
    )
    yield "margin", {}, losses.MarginLoss()
    yield (
        "margin",
        {"beta": 1.25, "learn-beta": True, "nu": 0.05},
        losses.MarginLoss(beta=1.25, learn_beta=True, nu=0.05),
    )
    yield (
        "margin",
        {"beta": 1.125, "margin": 0.3, "learn-beta": True, "beta-per-class": True, "nu": 0.1},
        losses.MarginLoss(beta=1.125, margin=0.3, learn_beta=True, num_classes=CLASSES, nu=0.1),
    )
    yield "contrastive", {}, losses.ContrastiveLoss()
    yield (
        "contrastive",
        {"positive-margin": 0.4, "negative-margin": 1.5},
        losses.ContrastiveLoss(pos_margin=0.4, neg_margin=1.5),
    )
    yield "arcface", {}, losses.ArcFaceLoss(**size)
    yield "arcface", {"margin": 70.0, "scale": 10.0}, losses.ArcFaceLoss(**size, margin=70.0, scale=10.0)
    yield "nt-xent", {}, losses.NTXentLoss()
    yield "nt-xent", {"temperature": 0.5}, losses.NTXentLoss(temperature=0.5)


def main():
    torch.set_default_dtype(torch.float64)
    generator = numpy.random.default_rng(SEED)
    embeddings = generator.normal(size=(ROWS, DIM)) * generator.uniform(0.5, 2.0, size=(ROWS, 1))
    proxies = generator.normal(size=(CLASSES, DIM))
    labels = torch.tensor(LABELS)
    found = []
    for name, settings, loss in cases():
        rows = torch.tensor(embeddings, requires_grad=True)
        case = {"config": {name: settings}}
        table = None
        if name == "proxy-anchor":
            table = loss.proxies
            table.data = torch.tensor(proxies)
        elif name == "arcface":
            table = loss.W  # the reference keeps it as [dim, classes]
            table.data = torch.tensor(proxies.T.copy())
        beta = getattr(loss, "beta", None) if settings.get("learn-beta") else None
        if beta is not None:
            beta.data = beta.data.double()
        value = loss(rows, labels)
        value.backward()
        case["value"] = value.item()
        case["embedding_gradient"] = rows.grad.tolist()
        if table is not None:
            case["proxy_gradient"] = (table.grad.T if name == "arcface" else table.grad).tolist()
        if beta is not None:
            case["beta_gradient"] = beta.grad.tolist()
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
        "labels": LABELS,
        "embeddings": embeddings.tolist(),
        "proxies": proxies.tolist(),
        "cases": found,
    }
    path = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "losses.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{path}: {len(found)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
