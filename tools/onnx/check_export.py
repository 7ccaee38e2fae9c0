"""Checks an exported model from outside: onnx.checker, Pillow for the preprocessing that the JSON file states, onnxruntime.

    gradus export --run RUN --format onnx --out model.onnx
    gradus embed --run RUN --images PHOTOS --out photos.npy
    python tools/onnx/check_export.py --model model.onnx --embeddings photos.npy --most 200 [--tolerance 1e-4]

Prints the largest difference from the embeddings that `gradus embed` wrote (paths are read from the table beside them), and where
it comes from: with --pixels FOLDER the images are first written there as PNG, decoded by Pillow, and nothing else is done (embed
that folder with gradus, and JPEG decoders are out of the comparison). Exit code 1 if the difference is larger than the tolerance.

Measured with onnx 1.23.2, onnxruntime 1.32.0, Pillow 13.0.0, numpy 2.4.6.
"""

import argparse
import csv
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageOps

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def opened(path):
    """An image as gradus reads it: turned as EXIF says, transparency dropped."""
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def resized(image, how):
    """The pixels the JSON file asks for, unsigned eight bits [height, width, 3]."""
    resize, crop = how["resize"], how["center_crop"]
    width, height = image.size
    if isinstance(resize, list):
        image = image.resize((resize[1], resize[0]), FILTERS[how["filter"]])
    elif resize is not None:
        short = min(width, height)
        image = image.resize((resize * width // short, resize * height // short), FILTERS[how["filter"]])
    if crop is not None:
        left = round((image.width - crop) / 2)  # Python rounds halves to even, as the format says.
        top = round((image.height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image)


def numbers(pixels, how):
    """Scaled, normalised, ordered."""
    if how["colour"] == "bgr":
        pixels = pixels[:, :, ::-1]
    values = (pixels.astype(np.float32) * np.float32(how["scale"]) - np.float32(how["mean"])) / np.float32(how["std"])
    return values.transpose(2, 0, 1) if how["layout"] == "nchw" else values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--embeddings", type=pathlib.Path, required=True)
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--pixels", type=pathlib.Path, help="only write the images as PNG into this folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    with arguments.embeddings.with_suffix(".csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    chosen = sorted({place * len(paths) // arguments.most for place in range(arguments.most)})[: len(paths)]
    if arguments.pixels:
        arguments.pixels.mkdir(parents=True, exist_ok=True)
        for place in chosen:
            opened(paths[place]).save(arguments.pixels / f"{place:06}.png")
        return 0

    onnx.checker.check_model(onnx.load(arguments.model), full_check=True)
    how = json.loads(arguments.model.with_suffix(".json").read_text())
    session = onnxruntime.InferenceSession(str(arguments.model), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    expected = np.load(arguments.embeddings)
    differences, cosines = [], []
    for place in chosen:
        pixels = resized(opened(paths[place]), how)
        values = pixels if entry.type == "tensor(uint8)" else numbers(pixels, how)
        if isinstance(entry.shape[0], int):
            values = np.repeat(values[None], entry.shape[0], axis=0)
        else:
            values = values[None]
        (found,) = session.run(None, {entry.name: np.ascontiguousarray(values)})
        differences.append(float(np.abs(found[0] - expected[place]).max()))
        cosines.append(float(found[0] @ expected[place]))
    result = {
        "images": len(chosen),
        "largest_difference": max(differences),
        "mean_largest_difference": float(np.mean(differences)),
        "least_cosine": min(cosines),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    print(json.dumps(result) if arguments.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
    return 0 if result["largest_difference"] < arguments.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
