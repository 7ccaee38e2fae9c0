"""`gradus.evaluate` beside pytorch-metric-learning's AccuracyCalculator, in one process, taking turns.

    python tools/benchmarks/python_evaluate.py [--rows 10000] [--dim 512] [--classes 100 500 1000] [--repeats 5]

Prints the versions, the largest difference of the three numbers both know and the ratio of the median times. Ends with an error
where they differ by more than 1e-6.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

import gradus

NAMES = {"precision_at_1": "recall@1", "r_precision": "r_precision", "mean_average_precision_at_r": "map@r"}


def timed(call):
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    names = ["gradus", "pytorch-metric-learning", "torch", "numpy"]
    try:
        version("faiss-cpu")
        names.append("faiss-cpu")
    except ImportError:
        pass
    print(", ".join(f"{name} {version(name)}" for name in names), f"{torch.get_num_threads()} threads", sep=", ")
    worst = 0.0
    for classes in arguments.classes:
        generator = np.random.default_rng(classes)
        labels = generator.integers(0, classes, arguments.rows)
        centres = generator.standard_normal((classes, arguments.dim))
        embeddings = centres[labels] + 4.0 * generator.standard_normal((arguments.rows, arguments.dim))
        embeddings = np.ascontiguousarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), dtype=np.float32)
        rows, known = torch.from_numpy(embeddings), torch.from_numpy(labels)
        calculator = AccuracyCalculator(include=tuple(NAMES), k="max_bin_count", device=torch.device("cpu"))
        ours = lambda: gradus.evaluate(embeddings, labels, measures=list(NAMES.values()), lone_queries="drop")
        theirs = lambda: calculator.get_accuracy(rows, known)
        ours(), theirs()
        times = [[], []]
        for _ in range(arguments.repeats):
            seconds, found = timed(ours)
            times[0].append(seconds)
            seconds, expected = timed(theirs)
            times[1].append(seconds)
        difference = max(abs(found[name] - expected[other]) for other, name in NAMES.items())
        worst = max(worst, difference)
        own, other = (statistics.median(all_times) for all_times in times)
        print(
            f"{arguments.rows} x {arguments.dim}, {classes} classes: gradus {own:.3f} s, AccuracyCalculator {other:.3f} s, "
            f"ratio {other / own:.2f}, largest difference {difference:.1e}"
        )
    return 0 if worst <= 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
