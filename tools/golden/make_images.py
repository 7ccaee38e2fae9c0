"""Writes the image fixtures of gradus-core that Rust encoders cannot make.

Made with Pillow 13.0.0:  python make_images.py ../../crates/gradus-core/tests/images
"""

import sys
from pathlib import Path

from PIL import Image

LEFT, RIGHT = (200, 30, 90), (10, 160, 40)


def halves(size):
    image = Image.new("RGB", (size, size), LEFT)
    image.paste(RIGHT, (size // 2, 0, size, size))
    return image


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    halves(8).quantize(2).save(folder / "palette.png")
    one_bit = Image.new("1", (8, 8), 0)
    one_bit.paste(1, (4, 0, 8, 8))
    one_bit.save(folder / "one_bit.png")
    halves(16).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    for name in ("palette.png", "one_bit.png", "cmyk.jpg"):
        image = Image.open(folder / name)
        rgb = image.convert("RGB")
        size = (folder / name).stat().st_size
        print(name, image.mode, size, "bytes:", rgb.getpixel((1, 4)), rgb.getpixel((image.width - 2, 4)))


main(Path(sys.argv[1]))
