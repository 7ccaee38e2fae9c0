"""Writes tests/golden/backbones.json: what torchvision's, timm's and Cadene's networks compute, stage by stage.

Usage: pip install torch torchvision timm pretrainedmodels numpy && python tools/golden/backbones.py [NAME ...]

Weights are not stored: every number is a hash of the array's name in the reference's state dict and its position (`draws`), scaled by
what the array is (`fill`); the test fills a file by the same rule under the names it believes in. The file holds, for each network and
each family of names, a digest of all names and shapes, and of every stage its shape, mean, root of the mean square and eight values;
of the features, the first 32. Networks run in double precision on one image. With names given, only those are made anew.
"""

import importlib
import json
import math
import pathlib
import sys

import numpy
import timm
import torch
import torchvision
from torch.nn import functional
from torchvision.models.vision_transformer import interpolate_embeddings

# The package hides the module behind a function of the same name.
cadene = importlib.import_module("pretrainedmodels.models.bninception")

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/backbones.json"
MASK = (1 << 64) - 1
IMAGENET = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def draws(name, count):
    """`count` numbers from -1 to 1: SplitMix64 of the name's hash plus the position."""
    with numpy.errstate(over="ignore"):
        z = numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15) + numpy.uint64(fnv(name))
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    return (z >> numpy.uint64(40)).astype(numpy.float64) / 2.0**23 - 1.0


def fill(name, shape, gain):
    """The numbers of an array, in single precision."""
    u = draws(name, math.prod(shape))
    last = name.rsplit(".", 1)[-1]
    squeezed = [extent for extent in shape if extent != 1]
    if last == "running_var":
        values = 1.0 + 0.5 * u
    elif last in ("gamma", "layer_scale"):
        values = 0.5 + 0.25 * u
    elif last in ("cls_token", "class_token", "pos_embed", "pos_embedding"):
        values = 0.5 * u
    elif last.endswith("weight") and len(squeezed) >= 2:
        values = u * math.sqrt(gain / math.prod(shape[1:]))
    elif last.endswith("weight"):
        values = 1.0 + 0.2 * u
    else:
        values = 0.1 * u
    return values.astype(numpy.float32).reshape(shape)


def heads(name):
    parts = ("fc.", "classifier.1.", "classifier.2.", "classifier.weight", "classifier.bias", "head.fc.", "heads.", "last_linear.", "aux")
    return name.startswith(parts) or name in ("head.weight", "head.bias") or name.endswith("num_batches_tracked")


def filled(model, gain, change=lambda state: state):
    """The model with its weights, and the digest of names and shapes."""
    state = model.state_dict()
    lines = []
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = list(value.shape)
        state[name] = torch.from_numpy(fill(name, shape, gain))
        if not heads(name):
            lines.append(f"{name} {','.join(map(str, shape))}\n")
    return change(state), {"arrays": len(lines), "digest": f"{fnv(''.join(sorted(lines))):016x}"}


def image(size):
    """One image of numbers from 0 to 1, smooth and rough at once."""
    u = (draws("image", 3 * size * size).reshape(3, size, size) + 1.0) / 2.0
    rows, columns = numpy.meshgrid(numpy.arange(size), numpy.arange(size), indexing="ij")
    channel = numpy.arange(3).reshape(3, 1, 1)
    smooth = 0.5 + 0.5 * numpy.sin(0.11 * rows + 0.07 * columns * (channel + 1) + channel)
    values = (0.5 * u + 0.5 * smooth).astype(numpy.float32)
    return torch.from_numpy(values).double().unsqueeze(0)


def normalised(images, mean, deviation):
    return (images - torch.tensor(mean).double().view(1, 3, 1, 1)) / torch.tensor(deviation).double().view(1, 3, 1, 1)


def number(value):
    return float(f"{value:.9g}")


def stage(tensor):
    flat = tensor.detach().reshape(-1)
    places = [int(i * 2654435761 % flat.numel()) for i in range(1, 9)]
    return {
        "shape": list(tensor.shape),
        "mean": number(flat.mean()),
        "rms": number(flat.square().mean().sqrt()),
        "values": [number(flat[place]) for place in places],
    }


def hooked(model, names):
    """Collects the outputs of modules as they appear."""
    seen = []
    modules = dict(model.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda _m, _i, output: seen.append(output))
    return seen


def run(model, images, names, features):
    model = model.double().eval()
    seen = hooked(model, names)
    with torch.no_grad():
        found = features(model, images)
    return [stage(tensor) for tensor in seen], found[0]


def torchvision_features(pool=True, norm=False):
    def features(model, images):
        x = model.features(images) if hasattr(model, "features") else None
        x = x.mean((2, 3))
        return model.classifier[0](x[:, :, None, None]).flatten(1) if norm else x

    return features


def resnet101():
    model = torchvision.models.resnet101(weights=None)
    state, names = filled(model, 1.0)
    model.load_state_dict(state)
    model.fc = torch.nn.Identity()
    blocks = [f"layer{stage + 1}.{block}" for stage, count in enumerate((3, 4, 23, 3)) for block in range(count)]
    return "resnet101", "torchvision", names, 1.0, 64, run(model, normalised(image(64), *IMAGENET), ["maxpool", *blocks], lambda m, x: m(x))


def resnet101_timm():
    model = timm.create_model("resnet101")
    _, names = filled(model, 1.0)
    return "resnet101", "timm", names, 1.0, 64, None


def googlenet():
    # As its weights are used: ImageNet's normalisation, turned round inside.
    model = torchvision.models.googlenet(weights=None, transform_input=True, aux_logits=True, init_weights=False)
    state, names = filled(model, 6.0)
    model.load_state_dict(state)
    model.fc = torch.nn.Identity()
    stages = ["maxpool1", "maxpool2", "inception3a", "maxpool3", "inception4a", "inception4b", "inception4c", "inception4d", "maxpool4"]
    stages += ["inception5a", "inception5b"]
    images = normalised(image(90), *IMAGENET)
    return "googlenet", "torchvision", names, 6.0, 90, run(model, images, stages, lambda m, x: m(x))


def bn_inception():
    model = cadene.bninception(num_classes=1000, pretrained=None)
    state, names = filled(model, 6.0)
    model.load_state_dict(state)
    settings = cadene.pretrained_settings["bninception"]["imagenet"]
    # Blue first, from 0 to 255.
    images = normalised(image(96).flip(1) * 255.0, settings["mean"], settings["std"])
    joined, joining = [], torch.cat

    def features(model, images):
        def cat(tensors, dim):
            joined.append(joining(tensors, dim))
            return joined[-1]

        torch.cat = cat
        try:
            return model.features(images).mean((2, 3))
        finally:
            torch.cat = joining

    stages, found = run(model, images, ["pool1_3x3_s2", "pool2_3x3_s2"], features)
    return "bn-inception", "authors", names, 6.0, 96, (stages + [stage(tensor) for tensor in joined], found)


REPEATS = (1, 2, 2, 3, 3, 4, 1)


def efficientnet():
    model = torchvision.models.efficientnet_b0(weights=None)
    state, names = filled(model, 6.0)
    model.load_state_dict(state)
    blocks = [f"features.{index + 1}.{block}" for index, count in enumerate(REPEATS) for block in range(count)]
    images = normalised(image(72), *IMAGENET)
    return "efficientnet-b0", "torchvision", names, 6.0, 72, run(model, images, ["features.0", *blocks, "features.8"], torchvision_features())


def efficientnet_timm():
    model = timm.create_model("efficientnet_b0")
    state, names = filled(model, 6.0)
    model.load_state_dict(state)
    model.classifier = torch.nn.Identity()
    blocks = [f"blocks.{index}.{block}" for index, count in enumerate(REPEATS) for block in range(count)]
    return "efficientnet-b0", "timm", names, 6.0, 64, run(model, normalised(image(64), *IMAGENET), ["bn1", *blocks, "bn2"], lambda m, x: m(x))


def convnext():
    model = torchvision.models.convnext_tiny(weights=None)
    state, names = filled(model, 1.0)
    model.load_state_dict(state)
    blocks = [f"features.{2 * index + 1}.{block}" for index, count in enumerate((3, 3, 9, 3)) for block in range(count)]
    images = normalised(image(64), *IMAGENET)
    found = run(model, images, ["features.0", *blocks], torchvision_features(norm=True))
    return "convnext-tiny", "torchvision", names, 1.0, 64, found


def convnext_timm():
    model = timm.create_model("convnext_tiny")
    state, names = filled(model, 1.0)
    model.load_state_dict(state)
    model.head.fc = torch.nn.Identity()
    blocks = [f"stages.{index}.blocks.{block}" for index, count in enumerate((3, 3, 9, 3)) for block in range(count)]
    return "convnext-tiny", "timm", names, 1.0, 70, run(model, normalised(image(70), *IMAGENET), ["stem", *blocks], lambda m, x: m(x))


def vit_b16():
    model = torchvision.models.vit_b_16(weights=None, image_size=64)
    whole = torchvision.models.vit_b_16(weights=None)
    state, names = filled(whole, 1.0, lambda state: interpolate_embeddings(64, 16, state))
    model.load_state_dict(state)
    model.heads = torch.nn.Identity()
    blocks = [f"encoder.layers.encoder_layer_{block}" for block in range(11)]
    found = run(model, normalised(image(64), *IMAGENET), ["encoder.dropout", *blocks], lambda m, x: m(x))
    return "vit-b16", "torchvision", names, 1.0, 64, found, {"positions": "torchvision"}


def vit_timm(name, ours, size, settings=None, change=lambda state: state):
    model = timm.create_model(name, dynamic_img_size=True, num_classes=0)
    state, names = filled(model, 1.0, change)
    model.load_state_dict(state)
    blocks = [f"blocks.{block}" for block in range(11)]
    found = run(model, normalised(image(size), *IMAGENET), ["norm_pre", *blocks], lambda m, x: m(x))
    return ours, "timm", names, 1.0, size, found, settings or {}


def vit_b16_timm():
    _, names = filled(timm.create_model("vit_base_patch16_224"), 1.0)
    return "vit-b16", "timm", names, 1.0, 64, None


def vit_s16():
    return vit_timm("deit_small_patch16_224", "vit-s16", 96)


def vit_s16_native():
    return vit_timm("deit_small_patch16_224", "vit-s16", 224)


def vit_s16_dino():
    # What DINO's and DINOv2's published code does to the positions of another size: a grid larger by 0.1 names the scale.
    def change(state):
        positions = state["pos_embed"].double()
        side = math.isqrt(positions.shape[1] - 1)
        grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = (80 // 16 + 0.1) / side
        grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        assert grid.shape[-1] == 80 // 16
        patches = grid.permute(0, 2, 3, 1).reshape(1, -1, positions.shape[2])
        return {**state, "pos_embed": torch.cat([positions[:, :1], patches], 1).float()}

    model = timm.create_model("deit_small_patch16_224", img_size=80, num_classes=0)
    state, names = filled(timm.create_model("deit_small_patch16_224", num_classes=0), 1.0, change)
    model.load_state_dict(state)
    blocks = [f"blocks.{block}" for block in range(11)]
    found = run(model, normalised(image(80), *IMAGENET), ["norm_pre", *blocks], lambda m, x: m(x))
    return "vit-s16", "timm", names, 1.0, 80, found, {"positions": "dino"}


def vit_s16_patches():
    model = timm.create_model("deit_small_patch16_224", dynamic_img_size=True, num_classes=0)
    state, names = filled(model, 1.0)
    model.load_state_dict(state)
    found = run(model, normalised(image(96), *IMAGENET), [], lambda m, x: m.forward_features(x)[:, 1:].mean(1))
    return "vit-s16", "timm", names, 1.0, 96, found, {"output": "patch-tokens"}


def dinov2():
    return vit_timm("vit_small_patch14_dinov2", "dinov2-s14", 84)


CASES = {function.__name__.replace("_", "-"): function for function in (
    resnet101, resnet101_timm, googlenet, bn_inception, efficientnet, efficientnet_timm, convnext, convnext_timm,
    vit_b16, vit_b16_timm, vit_s16, vit_s16_native, vit_s16_dino, vit_s16_patches, dinov2,
)}


def main():
    asked = sys.argv[1:]
    cases = json.loads(OUT.read_text())["cases"] if asked and OUT.exists() else {}
    for case, function in CASES.items():
        if asked and case not in asked:
            continue
        backbone, family, names, gain, size, found, *settings = function()
        stages, features = found or ([], None)
        cases[case] = {
            "backbone": backbone, "family": family, "options": settings[0] if settings else {}, "names": names, "gain": gain,
            "size": size, "stages": stages,
            "features": [] if features is None else [number(value) for value in features[:32]],
            "feature_rms": 0.0 if features is None else number(features.square().mean().sqrt()),
        }
        print(case, names, [f"{entry['rms']:.3g}" for entry in stages], cases[case]["feature_rms"], file=sys.stderr)
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, timm, numpy)}
    versions["pretrainedmodels"] = "0.7.4"
    lines = ",\n".join(f" {json.dumps(case)}: {json.dumps(cases[case], separators=(',', ':'))}" for case in CASES if case in cases)
    OUT.write_text(f'{{"made_by": "tools/golden/backbones.py",\n"versions": {json.dumps(versions)},\n"cases": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
