"""Classes for what the registries of gradus hold: one each, with its settings as keywords."""

from __future__ import annotations

import inspect
import keyword
from typing import Any

# What every loss takes beside its own settings.
OPTIONS = {
    "distance": None,
    "reducer": None,
    "embedding_regularizer": None,
    "embedding_reg_weight": 1.0,
    "weight_regularizer": None,
    "weight_reg_weight": 1.0,
}


def class_name(name: str) -> str:
    """``multi-similarity`` is ``MultiSimilarity``."""
    return "".join(part.capitalize() for part in name.split("-"))


def keywords(entry: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """The settings of an entry with their defaults, as keywords (``lambda_`` for ``lambda``), and those that all entries take."""
    words = ((key.replace("-", "_"), value) for key, value in entry["defaults"].items())
    own = {word + "_" * keyword.iskeyword(word): value for word, value in words}
    return {**own, **{key: value for key, value in fixed.items() if key not in own}}


def docstring(entry: dict[str, Any]) -> str:
    """What an entry is and where it comes from."""
    return f"{entry['summary']} ({entry['paper']}, {entry['year']}).\n\nName in configuration files: ``{entry['name']}``."


def make(entry: dict[str, Any], base: type, module: str, fixed: dict[str, Any], own: tuple[str, ...]) -> type:
    """A class of ``base`` for an entry; ``own`` are the keywords that are no settings."""
    name = class_name(entry["name"])
    defaults = keywords(entry, fixed)

    def new(cls: type, **settings: Any) -> Any:
        given = {key: settings.pop(key) for key in own if key in settings}
        named = {key.removesuffix("_"): value for key, value in settings.items()}
        return base.__new__(cls, entry["name"], named, **given)

    new.__name__, new.__qualname__ = "__new__", f"{name}.__new__"
    parameters = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in defaults.items()
    ]
    return type(
        name,
        (base,),
        {
            "__new__": new,
            "__doc__": docstring(entry),
            "__module__": module,
            "__signature__": inspect.Signature(parameters),
        },
    )
