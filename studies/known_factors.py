#!/usr/bin/env python3
"""The known factors of `flora` as a teacher: what ranking could give if the teacher knew everything.

    gradus data generate flora --seed 7 --out plants
    python3 studies/known_factors.py plants --out known-factors.npy
    gradus compare --config studies/flora-known-factors.toml --data-root . --out runs/flora-known-factors

Writes a direction for each factor (a factor without a period goes half around a circle), so that the cosine of two rows is the mean of those
of the differences, and beside it the table of names that gradus reads. Python 3.11, numpy 2.
"""

import argparse
import csv
import pathlib

import numpy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    with open(arguments.folder / "factors.csv", newline="") as file:
        header, *rows = csv.reader(file)
    columns = []
    for at, name in enumerate(header[2:], 2):
        values = numpy.array([float(row[at]) for row in rows])
        if "[" in name:
            angles = values / float(name.split("[")[1][:-1]) * 2 * numpy.pi
        else:
            angles = (values - values.min()) / (values.max() - values.min()) * numpy.pi
        columns += [numpy.cos(angles), numpy.sin(angles)]
    numpy.save(arguments.out, numpy.stack(columns, 1).astype(numpy.float32))
    classes = sorted({row[1] for row in rows})
    with open(arguments.out.with_suffix(".csv"), "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "path", "label"])
        table.writerows([at, row[0], classes.index(row[1])] for at, row in enumerate(rows))


if __name__ == "__main__":
    main()
