"""Writes the receiver operating characteristics the tests of gradus-core are held to.

Run with numpy, scipy and scikit-learn installed (the versions used are stored with the numbers):

    python tools/golden/verification.py

It overwrites verification.json under crates/gradus-core/src/evaluation/golden.
"""

import json
import pathlib

import numpy
import scipy
import sklearn
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/evaluation/golden"
RATES = [0.5, 0.1, 0.01, 0.0]


def pairs():
    random = numpy.random.default_rng(23)
    yield [0.9, 0.1], [1, 0]
    yield [0.1, 0.9], [1, 0]
    yield [0.5, 0.5, 0.5], [1, 0, 0]
    for same, different, digits in [(5, 40, 6), (40, 5, 6), (60, 200, 1), (200, 60, 1), (30, 400, 2), (100, 100, 6)]:
        scores = numpy.concatenate([random.normal(0.5, 0.2, same), random.normal(0.2, 0.2, different)])
        scores = numpy.round(scores.clip(-1, 1), digits)
        yield scores, numpy.concatenate([numpy.ones(same), numpy.zeros(different)]).astype(int)


def case(scores, same):
    scores, same = numpy.asarray(scores, dtype=numpy.float32), numpy.asarray(same)
    far, tar, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    # The two error rates meet on the straight lines between the points, in order of falling threshold.
    way = numpy.arange(far.size, dtype=float)
    gap = interp1d(way, 1 - tar - far)
    at = brentq(gap, 0, way[-1], xtol=1e-14, rtol=1e-14)
    return {
        "similarities": [float(score) for score in scores],
        "same": same.tolist(),
        "auc": float(metrics.roc_auc_score(same, scores)),
        "eer": float(interp1d(way, far)(at)),
        "tar_at_far": [float(tar[far <= rate].max()) for rate in RATES],
    }


if __name__ == "__main__":
    versions = {"numpy": numpy.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__}
    content = {"versions": versions, "rates": RATES, "cases": [case(*pair) for pair in pairs()]}
    (OUT / "verification.json").write_text(json.dumps(content) + "\n")
