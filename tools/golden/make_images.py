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


def photograph(width, height):
    """Something with edges and gradients in all channels."""
    image = Image.new("RGB", (width, height))
    pixels = [(x * 5 % 256, (x * y // 3 + 40) % 256, 255 - y * 6 % 256) for y in range(height) for x in range(width)]
    image.putdata(pixels)
    return image


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    halves(8).quantize(2).save(folder / "palette.png")
    one_bit = Image.new("1", (8, 8), 0)
    one_bit.paste(1, (4, 0, 8, 8))
    one_bit.save(folder / "one_bit.png")
    halves(16).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    # The ways in which photographs are stored; sizes that are no multiples of a block.
    photograph(45, 37).save(folder / "progressive_420.jpg", quality=85, subsampling=2, progressive=True)
    photograph(45, 37).save(folder / "baseline_422.jpg", quality=85, subsampling=1)
    photograph(45, 37).save(folder / "baseline_444_restart.jpg", quality=85, subsampling=0, restart_marker_blocks=4)
    photograph(45, 37).convert("L").save(folder / "grey.jpg", quality=85)
    # What libjpeg-turbo makes of them, to the last bit.
    for name in ("progressive_420", "baseline_422", "baseline_444_restart", "grey"):
        Image.open(folder / f"{name}.jpg").convert("RGB").save(folder / f"{name}.png")
    for name in ("palette.png", "one_bit.png", "cmyk.jpg"):
        image = Image.open(folder / name)
        rgb = image.convert("RGB")
        size = (folder / name).stat().st_size
        print(name, image.mode, size, "bytes:", rgb.getpixel((1, 4)), rgb.getpixel((image.width - 2, 4)))


main(Path(sys.argv[1]))
