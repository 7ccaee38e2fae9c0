"""Writes the rank correlations, spectra and principal components the tests of gradus-core are held to.

Run with numpy and scipy installed (the versions used are stored with the numbers):

    python tools/golden/ranks.py

It overwrites the two JSON files under crates/gradus-core/src/evaluation/golden.
"""

import json
import pathlib

import numpy
import scipy
from scipy import stats

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/evaluation/golden"
VERSIONS = {"numpy": numpy.__version__, "scipy": scipy.__version__}


def number(value):
    value = float(value)
    return None if numpy.isnan(value) else value


def ranks():
    random = numpy.random.default_rng(20240607)
    pairs = [
        ([1.0, 2.0], [5.0, 3.0]),
        ([1.0, 1.0, 2.0], [3.0, 4.0, 4.0]),
        ([2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]),
        ([0.0, -0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 3.0]),
    ]
    for size in (3, 4, 5, 8, 13, 29, 71):
        pairs.append((random.normal(size=size), random.normal(size=size)))
        pairs.append((random.integers(0, 4, size), random.integers(0, 3, size)))
        slope = numpy.arange(size) + random.normal(scale=2, size=size)
        pairs.append((numpy.arange(size), numpy.round(slope)))
    cases = []
    for a, b in pairs:
        a, b = numpy.asarray(a, dtype=float), numpy.asarray(b, dtype=float)
        with numpy.errstate(all="ignore"):
            spearman = stats.spearmanr(a, b).statistic
            kendall = stats.kendalltau(a, b, variant="b").statistic
        cases.append({"a": a.tolist(), "b": b.tolist(), "spearman": number(spearman), "kendall_tau_b": number(kendall)})
    return {"versions": VERSIONS, "cases": cases}


def spectra():
    """Rho, effective rank and principal components from full singular value decompositions."""
    random = numpy.random.default_rng(7)
    cases = []
    for rows, width in ((12, 5), (5, 9), (40, 17), (20, 20)):
        values = (random.normal(size=(rows, width)) * numpy.linspace(0.2, 2, width) + 0.3).astype(numpy.float32)
        values = numpy.round(values, 3).astype(numpy.float32)
        wide = values.astype(numpy.float64)
        unit = (wide / numpy.linalg.norm(wide, axis=1, keepdims=True)).astype(numpy.float32).astype(numpy.float64)

        def rho(singular):
            shares = singular / singular.sum()
            return float(numpy.mean(numpy.log(1 / len(shares) / shares)))

        singular = numpy.linalg.svd(unit, compute_uv=False)
        shares = singular / singular.sum()
        centred = numpy.linalg.svd(unit - unit.mean(0), compute_uv=False)[: min(rows - 1, width)]
        mean = wide.mean(0)
        _, scale, components = numpy.linalg.svd(wide - mean, full_matrices=False)
        kept = min(rows - 1, width)
        signs = numpy.sign(components[numpy.arange(len(components)), numpy.abs(components).argmax(1)])
        components = (components * signs[:, None])[:kept]
        cases.append(
            {
                "rows": rows,
                "width": width,
                "values": values.astype(float).ravel().tolist(),
                "rho": rho(singular),
                "effective_rank": float(numpy.exp(-(shares * numpy.log(shares)).sum())),
                "rho_centred": rho(centred),
                "mean": mean.tolist(),
                "variances": (scale[:kept] ** 2 / (rows - 1)).tolist(),
                "components": components.ravel().tolist(),
            }
        )
    return {"versions": VERSIONS, "cases": cases}


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in (("ranks.json", ranks()), ("spectra.json", spectra())):
        (OUT / name).write_text(json.dumps(content) + "\n")
