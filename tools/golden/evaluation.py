"""Writes the retrieval metrics that the tests of gradus-core are held to.

Run with numpy, scikit-learn, torch and pytorch-metric-learning installed (the versions used are stored with the numbers):

    python tools/golden/evaluation.py

Every number comes from plain loops in double precision over a fully sorted ranking (nearer first, then smaller index); those that
scikit-learn or pytorch-metric-learning also define are compared with them here, and their own numbers are stored beside.
"""

import json
import math
import pathlib

import numpy
import pytorch_metric_learning
import sklearn
import torch
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity, LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import average_precision_score, ndcg_score

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/evaluation/golden/retrieval.json"
VERSIONS = {
    "numpy": numpy.__version__,
    "scikit-learn": sklearn.__version__,
    "torch": torch.__version__,
    "pytorch-metric-learning": pytorch_metric_learning.__version__,
}
LEVELS = [1, 2, 5, 10, 1000]
DISTANCES = {
    "cosine": CosineSimilarity(),
    "inner-product": DotProductSimilarity(normalize_embeddings=False),
    "euclidean": LpDistance(normalize_embeddings=False),
}


def nearness(queries, gallery, distance):
    queries, gallery = queries.astype(numpy.float64), gallery.astype(numpy.float64)
    if distance == "euclidean":
        return -((queries[:, None, :] - gallery[None, :, :]) ** 2).sum(-1)
    products = queries @ gallery.T
    if distance == "cosine":
        # Einsum adds in one order for every row, so that duplicates tie exactly.
        products = numpy.einsum("qd,gd->qg", queries, gallery)
        return products / numpy.sqrt(numpy.einsum("gd,gd->g", gallery, gallery))[None, :]
    return products


def metrics_of_query(hits):
    relevant = int(hits.sum())
    ranks = numpy.flatnonzero(hits) + 1
    precision = [(found + 1) / rank for found, rank in enumerate(ranks)]
    within = lambda k: int((ranks <= k).sum())
    one = {
        "map@r": sum(precision[: within(relevant)]) / relevant,
        "r_precision": within(relevant) / relevant,
        "map": sum(precision) / relevant,
        "mrr": 1 / ranks[0],
    }
    for k in LEVELS:
        one[f"recall@{k}"] = one[f"cmc@{k}"] = float(within(k) > 0)
        one[f"precision@{k}"] = within(k) / k
        one[f"map@{k}"] = sum(precision[: within(k)]) / min(relevant, k)
        one[f"map_hits@{k}"] = sum(precision[: within(k)]) / max(within(k), 1)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(relevant, k)))
        one[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in ranks[ranks <= k]) / ideal
    return one


def case(name, distance, queries, labels, gallery=None, gallery_labels=None, references=True):
    target, target_labels = (queries, labels) if gallery is None else (gallery, gallery_labels)
    scores = nearness(queries, target, distance)
    found, ndcg, ap = [], [], []
    for query in range(len(queries)):
        others = [row for row in range(len(target)) if gallery is not None or row != query]
        order = sorted(others, key=lambda row: (-scores[query, row], row))
        hits = target_labels[order] == labels[query]
        if not hits.any():
            found.append(None)
            continue
        found.append(metrics_of_query(hits))
        if references:
            relevance = (target_labels[others] == labels[query]).astype(int)
            # scikit-learn's ndcg averages over ties; there are none where it is asked.
            ndcg.append(ndcg_score([relevance], [scores[query, others]], k=5))
            ap.append(average_precision_score(relevance, scores[query, others]))
    known = [one for one in found if one is not None]
    total = {key: sum(one[key] for one in known) for key in known[0]}
    result = {
        "name": name,
        "distance": distance,
        "dim": queries.shape[1],
        "queries": queries.ravel().tolist(),
        "labels": labels.tolist(),
        "gallery": None if gallery is None else gallery.ravel().tolist(),
        "gallery_labels": None if gallery is None else gallery_labels.tolist(),
        "lone": len(found) - len(known),
        "drop": {key: value / len(known) for key, value in total.items()},
        "miss": {key: value / len(found) for key, value in total.items()},
    }
    if references:
        calculator = AccuracyCalculator(
            include=(
                "precision_at_1",
                "r_precision",
                "mean_average_precision_at_r",
                "mean_average_precision",
                "mean_reciprocal_rank",
            ),
            k=None,
            knn_func=CustomKNN(DISTANCES[distance]),
        )
        tensor = lambda values: torch.tensor(values, dtype=torch.float64)
        if gallery is None:
            their = calculator.get_accuracy(tensor(queries), torch.tensor(labels))
        else:
            their = calculator.get_accuracy(
                tensor(queries), torch.tensor(labels), tensor(gallery), torch.tensor(gallery_labels), False
            )
        result["others"] = {
            "precision@1": their["precision_at_1"],
            "r_precision": their["r_precision"],
            "map@r": their["mean_average_precision_at_r"],
            "mrr": their["mean_reciprocal_rank"],
            "map": float(numpy.mean(ap)),
            "ndcg@5": float(numpy.mean(ndcg)),
        }
        assert abs(their["mean_average_precision"] - result["drop"]["map"]) < 1e-9, (name, their)
        for key, value in result["others"].items():
            assert abs(value - result["drop"][key]) < 1e-7, (name, key, value, result["drop"][key])
    return result


def unbalanced(random, rows, dim, offset=0.0):
    """Classes of very different sizes, some of one member."""
    labels = numpy.minimum(random.geometric(0.35, rows) - 1, 9)
    labels[:3] = [40, 41, 42]
    centres = random.normal(size=(43, dim))
    values = (centres[labels] + random.normal(size=(rows, dim)) + offset).astype(numpy.float32)
    return values, labels


def main():
    random = numpy.random.default_rng(20251125)
    cases = []
    for distance in DISTANCES:
        values, labels = unbalanced(random, 70, 6)
        cases.append(case("unbalanced with lone labels", distance, values, labels))
        others, other_labels = unbalanced(random, 50, 6)
        cases.append(case("query and gallery", distance, values, labels, others, other_labels))
        copies = numpy.concatenate([values[:20], values[:20], values[:10]])
        copied = numpy.concatenate([labels[:20], labels[5:25], labels[:10]])
        cases.append(case("exact duplicates", distance, copies, copied, references=False))
        lattice = random.choice([-1.0, 1.0], size=(60, 4)).astype(numpy.float32)
        cases.append(case("ties", distance, lattice, labels[:60], references=False))
        cases.append(
            case("ties between query and gallery", distance, lattice[:25], labels[:25], lattice[25:], labels[25:60], False)
        )
    far, far_labels = unbalanced(random, 40, 5, offset=3000.0)
    cases.append(case("near-duplicates far from the origin", "euclidean", far, far_labels, references=False))
    text = json.dumps({"versions": VERSIONS, "levels": LEVELS, "cases": cases})
    OUT.write_text(text + "\n")
    print(f"{len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
