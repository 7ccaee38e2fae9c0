# %% [markdown]
# A run trained from a notebook with its events, then used: embedded pictures, an index, a search.

# %%
import tempfile
from pathlib import Path

import numpy as np

import gradus

folder = Path(tempfile.mkdtemp())
config = {
    "preset": "proxy-anchor",
    "data": {"path": "flora", "flora": {"species": 12, "images": 8, "size": 32}},
    "transform.size": 32,
    "model": {"width": 64, "freeze-batch-norm": False, "backbone": {"conv4": {"channels": 64}}},
    "sampler.m-per-class": {"classes": 4, "samples": 4},
    "train.epochs": 2,
}

# %% Every event is a dict; a notebook may draw with them. Ctrl-C stops the run with everything saved.
training = gradus.Training(config, out=folder / "run")
for event in training:
    if event["event"] == "epoch":
        print(f"epoch {event['epoch']}: loss {event['loss']:.3f}")
run = training.result()
print(f"Recall@1 on species never seen: {run.metrics['recall@1']:.3f}")

# %% Pictures of uint8, paths or a folder become unit-norm rows.
pictures = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
embeddings = run.embed(pictures)
print(embeddings.shape, embeddings.dtype)

# %%
payload = [{"price": number} for number in range(20)]
index = gradus.Index.create(folder / "pictures.index", embeddings, payload=payload)
for hit in index.search(embeddings[7], k=3, filter="price<10"):
    print(f"{hit['id']}: {hit['score']:.4f}")
