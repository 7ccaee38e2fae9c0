"""Writes the collapse measure NC1 the tests of gradus-core are held to.

Run with numpy installed (the version used is stored with the numbers):

    python tools/golden/structure.py

It overwrites structure.json under crates/gradus-core/src/evaluation/golden.
"""

import json
import pathlib

import numpy

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/evaluation/golden"


def cases():
    random = numpy.random.default_rng(31)
    for rows, dim, classes, spread in [(30, 6, 4, 0.5), (60, 5, 12, 1.0), (40, 20, 3, 0.1), (25, 8, 2, 1e-3)]:
        centres = random.normal(size=(classes, dim))
        labels = random.integers(0, classes, rows)
        values = numpy.round(centres[labels] + spread * random.normal(size=(rows, dim)), 4).astype(numpy.float32)
        wide = values.astype(numpy.float64)
        # The tests work on unit rows in single precision.
        unit = (wide / numpy.linalg.norm(wide, axis=1, keepdims=True)).astype(numpy.float32).astype(numpy.float64)
        names = numpy.unique(labels)
        means = numpy.stack([unit[labels == name].mean(axis=0) for name in names])
        inside = unit - means[numpy.searchsorted(names, labels)]
        within = inside.T @ inside / rows
        apart = means - unit.mean(axis=0)
        between = apart.T @ apart / len(names)
        inverse = numpy.linalg.pinv(between, rcond=1e-12, hermitian=True)
        yield {
            "dim": dim,
            "values": [float(value) for value in values.ravel()],
            "labels": labels.tolist(),
            "nc1": float(numpy.trace(within @ inverse) / len(names)),
        }


if __name__ == "__main__":
    content = {"versions": {"numpy": numpy.__version__}, "cases": list(cases())}
    (OUT / "structure.json").write_text(json.dumps(content) + "\n")
