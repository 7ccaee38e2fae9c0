"""Reference numbers for gradus-core's resizing, written as JSON.

Made with Pillow 13.0.0:  python resize.py > ../../crates/gradus-core/tests/golden/resize.json

The geometry of "evaluate" follows torchvision's Resize(short side) and CenterCrop; "crop" follows resized_crop.
"""

import json
import sys

import PIL
from PIL import Image

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def pattern(width, height):
    """A smooth gradient with fine texture on it, the same in the Rust test."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            image.putpixel((x, y), tuple((x * 3 + y * 2 + c * 40 + (x * y + c) % 7 * 9) % 256 for c in range(3)))
    return image


def flat(image):
    return [value for y in range(image.height) for x in range(image.width) for value in image.getpixel((x, y))]


def evaluate(width, height, resize, size, name):
    if width < height:
        resized = (resize, int(resize * height / width))
    else:
        resized = (int(resize * width / height), resize)
    image = pattern(width, height).resize(resized, FILTERS[name])
    left, top = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    pixels = flat(image.crop((left, top, left + size, top + size)))
    return {"width": width, "height": height, "resize": resize, "size": size, "filter": name, "pixels": pixels}


def crop(width, height, box, size, name):
    left, top, crop_width, crop_height = box
    image = pattern(width, height).crop((left, top, left + crop_width, top + crop_height))
    pixels = flat(image.resize((size, size), FILTERS[name]))
    return {"width": width, "height": height, "box": box, "size": size, "filter": name, "pixels": pixels}


result = {
    "pillow": PIL.__version__,
    "evaluate": [
        evaluate(50, 33, 16, 14, "bilinear"),
        evaluate(33, 50, 15, 13, "bicubic"),
        evaluate(64, 64, 16, 14, "lanczos"),
        evaluate(5, 7, 16, 14, "bilinear"),
        evaluate(1, 1, 5, 4, "bilinear"),
    ],
    "crop": [
        crop(50, 33, (7, 3, 31, 20), 10, "bilinear"),
        crop(50, 33, (20, 10, 6, 8), 10, "bicubic"),
    ],
}
json.dump(result, sys.stdout, separators=(",", ":"))
print()
