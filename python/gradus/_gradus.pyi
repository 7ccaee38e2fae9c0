"""The compiled half of gradus; use the package ``gradus``."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

_Path = str | os.PathLike[str]
_LabelKind = Literal["classes", "multi-label", "hierarchy"]

def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    measures: str | Sequence[str] | None = None,
    at: int | Sequence[int] | None = None,
    factors: Mapping[str, ArrayLike] | ArrayLike | None = None,
    circular: Mapping[str, float] | None = None,
    reference: ArrayLike | None = None,
    categories: ArrayLike | None = None,
    cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    label_kind: _LabelKind | None = None,
    distance: Literal["cosine", "inner-product", "euclidean"] = "cosine",
    lone_queries: Literal["miss", "drop"] = "miss",
    per_class: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    memory: int | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """Measures embeddings: every query searches the gallery or, without one, the other queries."""

def measures() -> dict[str, str]:
    """The measures that ``evaluate`` knows: what each says and where it comes from."""

def search(
    queries: ArrayLike, gallery: ArrayLike | None = None, k: int = 10, *, threads: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Finds the ``k`` nearest rows of the gallery for every query: (scores, indices), nearest first, exactly, by cosine."""

def kmeans(
    embeddings: ArrayLike,
    clusters: int,
    *,
    restarts: int = 10,
    iterations: int = 300,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> dict[str, Any]:
    """K-means from k-means++ starts, the best of several."""

def cluster_scores(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """How clusters agree with classes."""

def losses() -> list[dict[str, Any]]:
    """What there is to show of all losses."""

def miners() -> list[dict[str, Any]]:
    """What there is to show of all miners."""

def list_images(folder: _Path) -> list[str]:
    """The images below a folder, in the order in which ``Run.embed`` takes them."""

class LossResult:
    """What a loss is worth, of what it is made, and its slopes."""

    @property
    def value(self) -> float: ...
    @property
    def gradient(self) -> NDArray[Any]: ...
    @property
    def reference_gradient(self) -> NDArray[Any] | None: ...
    @property
    def parameters_gradient(self) -> NDArray[Any] | None: ...
    @property
    def terms(self) -> dict[str, float]: ...

class Loss:
    """A loss of the registry with its settings; ``gradus.losses`` has one class for each."""

    def __new__(cls, name: str, settings: Mapping[str, Any], classes: int | None = None, seed: int = 0) -> Loss: ...
    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def parameters(self) -> NDArray[Any] | None: ...
    @parameters.setter
    def parameters(self, parameters: ArrayLike) -> None: ...
    def __call__(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        reference_embeddings: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
        mined: Sequence[ArrayLike] | None = None,
        label_kind: _LabelKind | None = None,
        seed: int | None = None,
    ) -> tuple[float, NDArray[Any]]:
        """The loss and its gradient at the embeddings."""

    def evaluate(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        reference_embeddings: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
        mined: Sequence[ArrayLike] | None = None,
        label_kind: _LabelKind | None = None,
        seed: int | None = None,
    ) -> LossResult:
        """The loss with its terms and all its gradients."""

    def unreduced(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        reference_embeddings: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
        mined: Sequence[ArrayLike] | None = None,
        label_kind: _LabelKind | None = None,
        seed: int | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Every value of the loss before a reducer makes one number of them."""

class Miner:
    """A miner of the registry with its settings; ``gradus.miners`` has one class for each."""

    def __new__(cls, name: str, settings: Mapping[str, Any], seed: int = 0) -> Miner: ...
    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    def __call__(
        self,
        embeddings: ArrayLike,
        labels: ArrayLike,
        reference_embeddings: ArrayLike | None = None,
        reference_labels: ArrayLike | None = None,
        *,
        label_kind: _LabelKind | None = None,
        seed: int | None = None,
    ) -> tuple[NDArray[np.int64], ...]:
        """(anchors, positives, negatives) of triplets, or (anchors, positives, anchors, negatives) of pairs."""

class Training:
    """A run that trains in the background: an iterator over its events, dicts with the key ``"event"``."""

    def __new__(
        cls,
        config: Mapping[str, Any] | _Path | None = None,
        *,
        out: _Path | None = None,
        resume: _Path | None = None,
    ) -> Training: ...
    @property
    def folder(self) -> os.PathLike[str]: ...
    def stop(self) -> None:
        """Asks the run to stop after the step it is at, with everything saved."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def result(self) -> Run:
        """Waits for the end and loads the run; raises what ended it otherwise."""

class Run:
    """A trained run: ``gradus.load(folder)``."""

    @staticmethod
    def load(folder: _Path, *, device: str | None = None) -> Run: ...
    @property
    def folder(self) -> os.PathLike[str]: ...
    @property
    def dim(self) -> int: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def metrics(self) -> dict[str, Any] | None: ...
    def embed(self, images: Any, *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Embeds images: unit-norm rows in the order given."""

class Index:
    """An index of embeddings that can be searched: ``gradus.Index.open(folder)``."""

    @staticmethod
    def open(folder: _Path) -> Index: ...
    @staticmethod
    def create(
        folder: _Path,
        vectors: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        classes: Sequence[str | None] | None = None,
        payload: Sequence[Mapping[str, Any]] | None = None,
        engine: Literal["flat", "qdrant-edge"] | None = None,
    ) -> Index: ...
    @property
    def folder(self) -> os.PathLike[str]: ...
    @property
    def dim(self) -> int: ...
    @property
    def engine(self) -> str: ...
    @property
    def notice(self) -> str | None: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: str) -> bool: ...
    def search(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: str | Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> list[Any]:
        """The ``k`` items nearest to a vector, nearest first; for a matrix of vectors, a list of such lists."""

    def identify(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: str | Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Any:
        """What a vector is: a dict with "unknown", "class", "threshold" and "hits"; for a matrix, a list of such dicts."""
