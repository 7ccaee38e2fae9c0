"""Writes tests/golden/miners.json: what pytorch-metric-learning's deterministic miners choose, in double precision.

Usage: pip install torch pytorch-metric-learning numpy && python tools/golden/miners.py
Every case names a batch and holds our configuration of the miner; the mapping to the reference's names is below. Sets of
more than LIMIT tuples are stored as their number and a digest. The file records versions and seed, so that a difference
can be traced.
"""

import json
import pathlib
import sys

import numpy
import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, miners

SEED = 20241
LIMIT = 150
MASK = (1 << 64) - 1


def batches(generator):
    """(name, labels, reference labels or None, width)"""
    yield "balanced-4", [0, 1, 0, 1], None, 3
    yield "balanced-16", [i % 4 for i in range(16)], None, 2
    yield "balanced-64", [i // 4 for i in range(64)], None, 4
    yield "unbalanced-12", [0, 1, 2, 0, 1, 2, 0, 2, 1, 0, 0, 2], None, 6
    yield "unbalanced-33", generator.choice(6, size=33, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05]).tolist(), None, 3
    yield "lone-9", [0, 0, 1, 1, 1, 7, 2, 2, 0], None, 4
    yield "same-6", [3] * 6, None, 3
    yield "different-8", list(range(8)), None, 3
    yield "reference-8-14", [0, 1, 2, 0, 1, 2, 0, 5], [0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 1, 3, 3, 2], 3
    yield "reference-20-31", [i % 5 for i in range(20)], [(i * i) % 7 for i in range(31)], 4


def cases():
    """(our name, our settings, the reference miner); settings left out are defaults on both sides."""
    cosine, raw, snr = distances.CosineSimilarity(), distances.LpDistance(normalize_embeddings=False), distances.SNRDistance()
    manhattan = distances.LpDistance(p=1)
    yield "angular", {}, miners.AngularMiner()
    yield "angular", {"angle": 35.0}, miners.AngularMiner(angle=35)
    strategies = ["easy", "hard", "semihard", "all"]
    for positive in strategies:
        for negative in strategies:
            try:
                miner = miners.BatchEasyHardMiner(pos_strategy=positive, neg_strategy=negative)
            except ValueError:
                continue
            yield "batch-easy-hard", {"pos-strategy": positive, "neg-strategy": negative}, miner
    yield "batch-easy-hard", {"distance": "cosine"}, miners.BatchEasyHardMiner(distance=cosine)
    yield (
        "batch-easy-hard",
        {"allowed-pos-range": [0.2, 1.1], "allowed-neg-range": [0.3, 1.4]},
        miners.BatchEasyHardMiner(allowed_pos_range=[0.2, 1.1], allowed_neg_range=[0.3, 1.4]),
    )
    yield (
        "batch-easy-hard",
        {"pos-strategy": "semihard", "neg-strategy": "hard", "allowed-neg-range": [-0.5, 0.7], "distance": "cosine"},
        miners.BatchEasyHardMiner(
            pos_strategy="semihard", neg_strategy="hard", allowed_neg_range=[-0.5, 0.7], distance=cosine
        ),
    )
    yield "batch-hard", {}, miners.BatchHardMiner()
    yield "batch-hard", {"distance": "cosine"}, miners.BatchHardMiner(distance=cosine)
    yield "batch-hard", {"distance": "snr"}, miners.BatchHardMiner(distance=snr)
    yield "hdc", {}, miners.HDCMiner()
    yield "hdc", {"filter-percentage": 0.3, "distance": "cosine"}, miners.HDCMiner(filter_percentage=0.3, distance=cosine)
    yield "multi-similarity", {}, miners.MultiSimilarityMiner()
    yield (
        "multi-similarity",
        {"epsilon": 0.3, "distance": {"lp": {"normalize": False}}},
        miners.MultiSimilarityMiner(epsilon=0.3, distance=raw),
    )
    yield "pair-margin", {}, miners.PairMarginMiner()
    yield (
        "pair-margin",
        {"pos-margin": 0.6, "neg-margin": 0.1, "distance": "cosine"},
        miners.PairMarginMiner(pos_margin=0.6, neg_margin=0.1, distance=cosine),
    )
    yield (
        "pair-margin",
        {"pos-margin": 1.0, "neg-margin": 1.5, "distance": {"lp": {"p": 1.0}}},
        miners.PairMarginMiner(pos_margin=1.0, neg_margin=1.5, distance=manhattan),
    )
    for kind in ["all", "hard", "semihard", "easy"]:
        yield "triplet-margin", {"type-of-triplets": kind}, miners.TripletMarginMiner(type_of_triplets=kind)
    yield (
        "triplet-margin",
        {"margin": 0.4, "type-of-triplets": "semihard", "distance": "cosine"},
        miners.TripletMarginMiner(margin=0.4, type_of_triplets="semihard", distance=cosine),
    )
    yield "embeddings-already-packaged-as-triplets", {}, miners.EmbeddingsAlreadyPackagedAsTriplets()


def mix(value):
    """SplitMix64's finaliser."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def stored(columns, unordered):
    """Sorted tuples, or their number and the sum of the mixed tuples; `unordered` forgets who is the anchor."""
    tuples = [sorted(entry) if unordered else list(entry) for entry in zip(*(column.tolist() for column in columns))]
    tuples.sort()
    if len(tuples) <= LIMIT:
        return tuples
    digest = 0
    for entry in tuples:
        number = 0
        for index in entry:
            number = (number << 20) | index
        digest = (digest + mix(number)) & MASK
    return {"count": len(tuples), "digest": str(digest)}


def main():
    torch.set_default_dtype(torch.float64)
    generator = numpy.random.default_rng(SEED)
    rows = lambda count, dim: numpy.round(
        generator.normal(size=(count, dim)) * generator.uniform(0.5, 2.0, size=(count, 1)), 4
    )
    held, found = [], []
    for name, labels, reference_labels, dim in batches(generator):
        batch = {"name": name, "labels": labels, "embeddings": rows(len(labels), dim).tolist()}
        if reference_labels is not None:
            batch["reference_labels"] = reference_labels
            batch["reference_embeddings"] = rows(len(reference_labels), dim).tolist()
        held.append(batch)
    for name, settings, miner in cases():
        for batch in held:
            reference = "reference_labels" in batch
            if name.startswith("embeddings-already") and (reference or len(batch["labels"]) % 3 != 0):
                continue
            arguments = [torch.tensor(batch["embeddings"]), torch.tensor(batch["labels"])]
            if reference:
                arguments += [torch.tensor(batch["reference_embeddings"]), torch.tensor(batch["reference_labels"])]
            chosen = miner(*arguments)
            case = {"config": {name: settings}, "batch": batch["name"]}
            if len(chosen) == 3:
                case["triplets"] = stored(chosen, False)
            else:
                # (i, j) and (j, i) are equally far apart: which of them a cut between the two keeps is left open.
                unordered = name == "hdc" and not reference
                case["positive"] = stored(chosen[:2], unordered)
                case["negative"] = stored(chosen[2:], unordered)
            found.append(case)
    golden = {
        "generator": "tools/golden/miners.py",
        "versions": {
            "python": sys.version.split()[0],
            "pytorch-metric-learning": pytorch_metric_learning.__version__,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "seed": SEED,
        "batches": held,
        "cases": found,
    }
    path = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "miners.json"
    lines = json.dumps(golden, separators=(",", ":")).replace('{"config"', '\n{"config"').replace('{"name"', '\n{"name"')
    path.write_text(lines + "\n")
    print(f"{path}: {len(found)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
