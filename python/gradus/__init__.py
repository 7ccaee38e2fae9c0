"""Deep metric learning on NumPy arrays, computed by Rust.

=============================  ==========================================================================================
``evaluate``                   Recall@K, MAP@R, R-precision and everything else that ``measures()`` lists
``recall_at_k``, ``map_at_r``  one number each
``structure``                  what is left of the differences inside classes
``search``                     exact nearest neighbours
``kmeans``, ``cluster_scores`` clusters, and how they agree with classes
``losses``                     every loss: value and gradient
``miners``                     every miner
``train``, ``Training``        training, with its events
``load``                       a trained run that embeds images
``Index``                      image search
=============================  ==========================================================================================

Arrays of float32 in row order are borrowed, not copied, and must not be changed while a call runs; float64, float16 and other
layouts are converted with one copy; other types are refused by name. Results are arrays of their own. The interpreter's lock
is free while Rust works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import losses as losses
from . import miners as miners
from ._gradus import Index as Index
from ._gradus import LossResult as LossResult
from ._gradus import Run as Run
from ._gradus import Training as Training
from ._gradus import __version__ as __version__
from ._gradus import cluster_scores as cluster_scores
from ._gradus import evaluate as evaluate
from ._gradus import kmeans as kmeans
from ._gradus import list_images as list_images
from ._gradus import measures as measures
from ._gradus import search as search

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "Index",
    "LossResult",
    "Run",
    "Training",
    "cluster_scores",
    "evaluate",
    "kmeans",
    "list_images",
    "load",
    "losses",
    "map_at_r",
    "measures",
    "miners",
    "recall_at_k",
    "search",
    "structure",
    "train",
]

_STRUCTURE = ["density", "rho", "rho_intra", "effective_rank", "nc1", "alignment", "uniformity"]
_ORDER = [
    "order_preservation",
    "order_preservation_kendall",
    "order_preservation.FACTOR",
    "order_preservation_combined",
    "order_spearman",
    "order_kendall",
    "order_preservation_near",
    "recall_far",
]
_REFERENCE = ["knn_overlap", "reference_spearman", "linear_cka"]
_SUBCLASSES = ["subclass_recall", "subclass_r_precision"]


def recall_at_k(embeddings: ArrayLike, labels: ArrayLike, k: int = 1, **options: Any) -> float:
    """Share of queries with a member of their class among the ``k`` nearest rows; options as of ``evaluate``."""
    name = f"recall@{k}"
    return evaluate(embeddings, labels, measures=name, **options)[name]


def map_at_r(embeddings: ArrayLike, labels: ArrayLike, **options: Any) -> float:
    """Mean average precision at R (Musgrave et al., A Metric Learning Reality Check, ECCV 2020); options as of ``evaluate``."""
    return evaluate(embeddings, labels, measures="map@r", **options)["map@r"]


def structure(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    factors: Mapping[str, ArrayLike] | ArrayLike | None = None,
    circular: Mapping[str, float] | None = None,
    reference: ArrayLike | None = None,
    categories: ArrayLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The structure inside classes: how wide they are, and what is left of the differences between their members.

    With known ``factors`` of every row, whether distances inside classes keep their order; with ``reference`` embeddings of the
    same rows, how alike the neighbourhoods are; with ``categories``, how well classes are told apart inside them. The other
    options are those of ``evaluate``.
    """
    names = list(_STRUCTURE)
    names += _ORDER if factors is not None else []
    names += _REFERENCE if reference is not None else []
    names += _SUBCLASSES if categories is not None else []
    given = {"factors": factors, "circular": circular, "reference": reference, "categories": categories}
    return evaluate(embeddings, labels, measures=names, **given, **options)


def load(folder: str | os.PathLike[str], *, device: str | None = None) -> Run:
    """Loads a trained run: ``gradus.load("runs/mine").embed(images)``."""
    return Run.load(folder, device=device)


def train(
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> Run:
    """Trains a run to its end and loads it; its measures are in ``metrics``.

    Ctrl-C stops it after the step it is at and saves everything; ``train(resume=folder)`` goes on to the same weights. A second
    Ctrl-C does not wait. An exception of ``on_event`` stops it in the same way.

    Args:
        config: a dict of settings (nested, or with dotted keys such as ``"train.epochs"``), the path of a TOML file, or None
            for the preset ``gradus``. Keys are those of ``gradus config show``; ``"data"`` may be a path; ``"embeddings"`` and
            ``"labels"`` are files of vectors of another model and their classes.
        out: the folder of the run; a new one below ``runs``.
        resume: the folder of a run to go on with, instead of ``config``.
        on_event: called with every event, a dict with the key ``"event"``, in this thread.

    Raises:
        ValueError: settings or data that do not fit, with the nearest name. FileNotFoundError: data that are not there.
        RuntimeError: a loss that is no number, a folder that cannot be written.
    """
    training = Training(config, out=out, resume=resume)
    try:
        for event in training:
            if on_event is not None:
                on_event(event)
    except BaseException as stopped:
        training.stop()
        try:
            training.result()
        except RuntimeError as saved:
            if isinstance(stopped, KeyboardInterrupt):
                raise KeyboardInterrupt(f"{saved}, or gradus.train(resume={os.fspath(training.folder)!r})") from None
        raise
    return training.result()


def __dir__() -> Sequence[str]:
    return __all__
