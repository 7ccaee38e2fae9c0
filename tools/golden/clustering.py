"""Writes the scores of clusterings the tests of gradus-core are held to.

Run with numpy and scikit-learn installed (the versions used are stored with the numbers):

    python tools/golden/clustering.py

It overwrites clustering.json under crates/gradus-core/src/evaluation/golden.
"""

import json
import pathlib

import numpy
import sklearn
from sklearn import metrics

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/evaluation/golden"


def assignments():
    random = numpy.random.default_rng(11)
    yield [0], [0]
    yield [0, 0, 0], [1, 1, 1]
    yield [0, 0, 0], [0, 1, 2]
    yield [0, 1, 2], [0, 0, 0]
    yield [0, 1, 2, 3], [3, 2, 1, 0]
    yield [0, 0, 1, 1], [0, 1, 0, 1]
    yield [0, 0, 1, 1, 2], [0, 0, 1, 1, 1]
    for items, classes, clusters in [(10, 3, 3), (40, 5, 9), (40, 9, 5), (200, 50, 60), (300, 4, 2), (500, 100, 100)]:
        truth = random.integers(0, classes, items)
        yield truth, random.integers(0, clusters, items)
        noisy = numpy.where(random.random(items) < 0.7, truth % clusters, random.integers(0, clusters, items))
        yield truth, noisy
    # Unbalanced: a few large classes, many lone ones.
    truth = numpy.concatenate([numpy.zeros(150), numpy.ones(80), numpy.arange(2, 60)]).astype(int)
    yield truth, random.permutation(truth)
    yield truth, (truth + (random.random(truth.size) < 0.3) * random.integers(1, 9, truth.size)) % 61


def case(truth, clusters):
    truth, clusters = numpy.asarray(truth), numpy.asarray(clusters)
    (_, false_positives), (false_negatives, true_positives) = metrics.cluster.pair_confusion_matrix(truth, clusters)
    pairs = 2 * true_positives + false_positives + false_negatives
    table = metrics.cluster.contingency_matrix(truth, clusters)
    return {
        "classes": truth.tolist(),
        "clusters": clusters.tolist(),
        "nmi": float(metrics.normalized_mutual_info_score(truth, clusters)),
        "nmi_geometric": float(metrics.normalized_mutual_info_score(truth, clusters, average_method="geometric")),
        "ami": float(metrics.adjusted_mutual_info_score(truth, clusters)),
        "f1": float(2 * true_positives / pairs) if pairs else 1.0,
        "purity": float(table.max(axis=0).sum() / truth.size),
    }


if __name__ == "__main__":
    versions = {"numpy": numpy.__version__, "scikit-learn": sklearn.__version__}
    content = {"versions": versions, "cases": [case(*pair) for pair in assignments()]}
    (OUT / "clustering.json").write_text(json.dumps(content) + "\n")
