"""Settings of a run of seconds."""

SMALL = {
    "preset": "proxy-anchor",
    "data": {"path": "flora", "flora": {"species": 12, "images": 8, "size": 32}},
    "transform.size": 32,
    "model": {"width": 64, "freeze-batch-norm": False, "backbone": {"conv4": {"channels": 64}}},
    "sampler.m-per-class": {"classes": 4, "samples": 4},
    "train.epochs": 2,
    "device": "cpu",
}
