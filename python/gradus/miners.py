"""Every miner of ``gradus list miners``: which pairs or triplets a loss should look at.

>>> miner = BatchHard()
>>> mined = miner(embeddings, labels)
>>> value, gradient = gradus.losses.TripletMargin()(embeddings, labels, mined=mined)

Settings are keywords, written as in configuration files with ``_`` for ``-``; ``seed`` is that of miners that choose at random.
"""

from __future__ import annotations

from typing import Any

from ._gradus import Miner as Miner
from ._gradus import miners as _miners
from ._registry import class_name as _class_name
from ._registry import make as _make

_OWN = ("seed",)

_REGISTRY: dict[str, Any] = {_class_name(entry["name"]): entry for entry in _miners()}
globals().update({name: _make(entry, Miner, __name__, {"seed": 0}, _OWN) for name, entry in _REGISTRY.items()})

__all__ = ["Miner", *_REGISTRY]
