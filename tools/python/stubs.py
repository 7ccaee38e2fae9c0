"""Writes python/gradus/losses.pyi and miners.pyi from the registries of the installed package: python tools/python/stubs.py"""

from __future__ import annotations

import json
import pathlib

from gradus import losses, miners
from gradus._registry import OPTIONS, class_name, docstring, keywords

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "python" / "gradus"
SETTING = {"distance", "reducer", "embedding_regularizer", "weight_regularizer", "classes", "seed"}


def annotated(key: str, value: object) -> str:
    """A keyword with the type its default shows."""
    if key == "classes":
        return "classes: int | None = None"
    if key == "seed":
        return "seed: int = 0"
    kinds = {bool: "bool", int: "int", float: "float", str: "str"}
    kind = kinds.get(type(value))
    if kind is None or key in SETTING:
        return f"{key}: _Setting = ..." if value is not None else f"{key}: _Setting | None = None"
    return f"{key}: {kind} = {json.dumps(value) if kind == 'str' else repr(value)}"


def stub(module: object, base: str, fixed: dict[str, object]) -> str:
    """The text of a stub file."""
    summary = module.__doc__.splitlines()[0]
    also = ", LossResult" if base == "Loss" else ""
    lines = [
        f'"""{summary}"""',
        "",
        "# Written by tools/python/stubs.py.",
        "",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any",
        "",
        f"from ._gradus import {base} as {base}" + (f"\nfrom ._gradus import LossResult as LossResult" if also else ""),
        "",
        "_Setting = str | float | Mapping[str, Any] | Sequence[Any]",
    ]
    for entry in module._REGISTRY.values():
        name = class_name(entry["name"])
        parts = [annotated(key, value) for key, value in keywords(entry, fixed).items()]
        lines += ["", f"class {name}({base}):", f'    """{docstring(entry).splitlines()[0]}"""', ""]
        lines += ["    def __new__(", "        cls,", "        *,"]
        lines += [f"        {part}," for part in parts]
        lines += [f"    ) -> {name}: ..."]
    return "\n".join(lines) + "\n"


def stubs() -> dict[str, str]:
    """The stub files by name."""
    return {
        "losses.pyi": stub(losses, "Loss", {**OPTIONS, "classes": None, "seed": 0}),
        "miners.pyi": stub(miners, "Miner", {"seed": 0}),
    }


if __name__ == "__main__":
    for name, text in stubs().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
