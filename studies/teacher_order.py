#!/usr/bin/env python3
"""How well do teachers themselves order the plants of `flora`? The bound of what holding members to them can give.

    gradus data generate flora --out flora
    python3 studies/teacher_order.py flora --classes 31-60 [--trunk mobilenet_v2_1.0_imagenet.safetensors] [--beside E.npy]

Prints, for each teacher, the rank correlation of its distances (cosine) with those of every known factor inside a class (mean over queries) and
their mean: what gradus calls `order_preservation`. `thumbnail` is the teacher of a network that starts from random weights, made of `colours`,
`edges` and `sides` of light, colour and edges (crates/gradus/src/train/thumbnail.rs); with --trunk (torchvision 0.21) also what MobileNetV2 has after each of its blocks, averaged over
places and at 4 x 4 places; with --beside, the embeddings of these classes as `gradus embed` writes them, the thumbnail with a rising share of the
similarity put beside them, and Recall@1: what can be had without training for it. Python 3.11, numpy 2, scipy 1.14, Pillow 11, torch 2.6.
"""

import argparse
import csv
import pathlib

import numpy
import torch
from PIL import Image
from scipy.stats import rankdata
from torch.nn.functional import adaptive_avg_pool2d

SIZE = 64


def read(folder, first, last):
    with open(folder / "factors.csv", newline="") as file:
        header, *rows = csv.reader(file)
    names = sorted({row[1] for row in rows})[first - 1 : last]
    rows = [row for row in rows if row[1] in names]
    factors = [(name.split("[")[0], float(name.split("[")[1][:-1]) if "[" in name else None) for name in header[2:]]
    values = numpy.array([[float(value) for value in row[2:]] for row in rows])
    images = [Image.open(folder / row[0]).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR) for row in rows]
    pixels = torch.from_numpy(numpy.stack([numpy.asarray(image) for image in images])).permute(0, 3, 1, 2) / 255
    return pixels, numpy.array([row[1] for row in rows]), values, factors


def unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)


def ranks(values):
    ranked = rankdata(values)
    return (ranked - ranked.mean()) / ranked.std()


def order(rows, labels, values, factors):
    rows, found = unit(rows), []
    for label in sorted(set(labels)):
        members = numpy.flatnonzero(labels == label)
        distances = 1 - rows[members] @ rows[members].T
        for place, query in enumerate(members):
            others = numpy.arange(len(members)) != place
            by_teacher, each = ranks(distances[place][others]), []
            for column, (_, period) in enumerate(factors):
                difference = numpy.abs(values[members, column] - values[query, column])
                if period:
                    difference = numpy.minimum(difference, period - difference)
                each.append((by_teacher * ranks(difference[others])).mean())
            found.append(each)
    return numpy.mean(found, axis=0)


def colours(pixels):
    small = adaptive_avg_pool2d(pixels, 8).flatten(2)
    return unit((small - small.mean(2, keepdim=True)).flatten(1).numpy())


def edges(pixels):
    grey = pixels.mean(1, keepdim=True)
    across = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
    down = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    angles = numpy.arange(8) * 2 * numpy.pi / 8
    strength = torch.cat([(numpy.cos(a) * across + numpy.sin(a) * down).clamp_min(0) for a in angles], 1)
    places = adaptive_avg_pool2d(strength, 4).sqrt().flatten(1).numpy()
    return unit(places - places.mean(0))


def steepness(pixels):
    grey = pixels.mean(1, keepdim=True)
    across = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
    down = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    return (across**2 + down**2).sqrt().sqrt()


def sides(maps, rings=8):
    *_, channels, height, width = maps.shape
    down, across = numpy.meshgrid(*((2 * numpy.arange(n) + 1) / n - 1 for n in (height, width)), indexing="ij")
    away = numpy.hypot(across, down) * rings - numpy.arange(rings)[:, None, None] - 0.5
    weights = (1 - abs(away)).clip(0)
    weights[0][away[0] < 0] = 1
    weights /= weights.sum((1, 2), keepdims=True)
    waves = weights * numpy.exp(1j * numpy.arctan2(down, across))
    sums = numpy.einsum("ncyx,ryx->ncr", maps.numpy().astype(float), waves)
    sums = (sums / abs(sums).clip(1e-3)).reshape(len(maps), -1)
    return unit(numpy.concatenate([sums.real, sums.imag], 1))


def trunk_features(pixels, weights):
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    trunk = mobilenet_v2()
    trunk.load_state_dict(load_file(weights), strict=False)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    maps = (pixels - mean) / deviation
    with torch.no_grad():
        for number, block in enumerate(trunk.eval().features):
            maps = block(maps)
            for name, side in (("average", 1), ("4 x 4", 4)):
                rows = unit(adaptive_avg_pool2d(maps, side).flatten(1).numpy())
                yield f"MobileNetV2 block {number}, {name}", rows - rows.mean(0)


def recall_at_1(rows, labels):
    similarity = unit(rows) @ unit(rows).T
    numpy.fill_diagonal(similarity, -2)
    return (labels[similarity.argmax(1)] == labels).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--classes", default="1-60")
    parser.add_argument("--trunk")
    parser.add_argument("--beside", type=pathlib.Path)
    arguments = parser.parse_args()
    first, last = (int(end) for end in arguments.classes.split("-"))
    pixels, labels, values, factors = read(arguments.folder, first, last)
    c, e = colours(pixels), edges(pixels)
    shares = pixels[:, :2] / (pixels.sum(1, keepdim=True) + 0.15)
    parts = {"light": pixels, "colour": shares, "edges": steepness(pixels)}
    parts = {f"sides of {name}": sides(maps) for name, maps in parts.items()}
    teachers = [("colours", c), ("edges", e), ("both", numpy.concatenate([c, e], 1)), *parts.items()]
    teachers.append(("thumbnail", numpy.concatenate([c, e, *parts.values()], 1)))
    if arguments.beside:
        embedded, rows = unit(numpy.load(arguments.beside).astype(float)), unit(teachers[-1][1] - teachers[-1][1].mean(0))
        for share in (0, 0.02, 0.05, 0.1, 0.2):
            both = numpy.concatenate([(1 - share) ** 0.5 * embedded, share**0.5 * rows], 1)
            teachers.append((f"embedding, thumbnail {share:.0%}, Recall@1 {100 * recall_at_1(both, labels):.1f}", both))
    if arguments.trunk:
        teachers += trunk_features(pixels, arguments.trunk)
    print("| teacher | order | " + " | ".join(name for name, _ in factors) + " |")
    print("|---|" + "---|" * (len(factors) + 1))
    for name, rows in teachers:
        each = order(rows, labels, values, factors)
        print(f"| {name} | {each.mean():.3f} | " + " | ".join(f"{value:.3f}" for value in each) + " |")


if __name__ == "__main__":
    main()
