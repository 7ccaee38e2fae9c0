"""Every loss of ``gradus list losses``: value and gradient on arrays.

>>> loss = MultiSimilarity(beta=40)
>>> value, gradient = loss(embeddings, labels)

Settings are keywords, written as in configuration files with ``_`` for ``-`` (and ``lambda_`` for ``lambda``); what is composed with a loss (``distance``,
``reducer``, regularisers) is a name or a dict of a name and its settings: ``distance="cosine"``, ``distance={"lp": {"p": 1}}``.
``evaluate`` also gives the terms and the gradients at references and at the parameters of the loss. Losses with proxies take
``classes``, their number (default: one more than the largest label of the first call), and ``seed``; their proxies are
``parameters``, which an optimiser of yours moves by ``parameters_gradient``. AdaFace, CurricularFace and the dynamic soft margin
keep running statistics, which every call moves on, as in training.
"""

from __future__ import annotations

from typing import Any

from ._gradus import Loss as Loss
from ._gradus import LossResult as LossResult
from ._gradus import losses as _losses
from ._registry import OPTIONS as _OPTIONS
from ._registry import class_name as _class_name
from ._registry import make as _make

_OWN = ("classes", "seed")

_REGISTRY: dict[str, Any] = {_class_name(entry["name"]): entry for entry in _losses()}
globals().update(
    {
        name: _make(entry, Loss, __name__, {**_OPTIONS, "classes": None, "seed": 0}, _OWN)
        for name, entry in _REGISTRY.items()
    }
)

__all__ = ["Loss", "LossResult", *_REGISTRY]
