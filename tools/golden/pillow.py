"""Writes what Pillow makes of a picture, for the test of crates/gradus-core/src/data/transform/pillow.rs.

    python tools/golden/pillow.py

Needs Pillow and numpy; the version is stored with the numbers.
"""

import json
import pathlib

import numpy as np
import PIL
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/gradus-core/src/data/transform/golden/pillow.json"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width]
    red, green = (x * 7 + y * 3) % 256, (x * y) % 251
    blue = np.where((x // 5 + y // 3) % 2 == 0, 250, 5)
    return Image.fromarray(np.stack([red, green, blue], 2).astype(np.uint8))


cases = []
for name, method in FILTERS.items():
    for width, height, short, size in [(97, 131, 26, 20), (140, 60, 26, 26), (30, 45, 30, 24), (13, 19, 40, 33), (500, 375, 73, 64)]:
        least = min(width, height)
        to = (short * width // least, short * height // least)
        left, top = (round((side - size) / 2) for side in to)
        cut = np.asarray(picture(width, height).resize(to, method).crop((left, top, left + size, top + size))).reshape(-1)
        checksum = 0
        for value in cut.tolist():
            checksum = (checksum * 31 + value) % 1_000_000_007
        cases.append({
            "filter": name, "width": width, "height": height, "resized_width": to[0], "resized_height": to[1], "left": left, "top": top,
            "size": size, "first": cut[:6].tolist(), "checksum": checksum,
        })
OUT.parent.mkdir(parents=True, exist_ok=True)
lines = ",\n".join("  " + json.dumps(case) for case in cases)
OUT.write_text(f'{{"pillow": "{PIL.__version__}", "cases": [\n{lines}\n]}}\n')
