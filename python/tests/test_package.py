"""The package itself: stubs, docstrings, documentation, defects."""

import importlib.util
import inspect
import pathlib
import re

import gradus
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_stubs_are_those_of_the_registries():
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "tools" / "python" / "stubs.py")
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    for name, text in stubs.stubs().items():
        assert (ROOT / "python" / "gradus" / name).read_text(encoding="utf-8") == text, "run tools/python/stubs.py"


def test_stubs_name_what_the_compiled_half_has():
    text = (ROOT / "python" / "gradus" / "_gradus.pyi").read_text(encoding="utf-8")
    compiled = gradus._gradus
    public = {name for name in dir(compiled) if not name.startswith("_")}
    assert public == set(re.findall(r"^(?:def|class) (\w+)", text, re.M))
    for name in public:
        thing = getattr(compiled, name)
        assert thing.__doc__, name
        if inspect.isclass(thing):
            stub = text.split(f"class {name}:")[1].split("\nclass ")[0]
            for member in (member for member in vars(thing) if not member.startswith("_")):
                assert f"def {member}(" in stub, f"{name}.{member}"
        else:
            keywords = inspect.signature(thing).parameters
            stub = text.split(f"def {name}(")[1].split(") ->")[0]
            assert list(keywords) == re.findall(r"(?:^|[\s(,])(\w+):", stub), name


def test_everything_public_says_what_it_is():
    for name in gradus.__all__:
        assert getattr(gradus, name).__doc__, name
    assert re.fullmatch(r"\d+\.\d+\.\d+", gradus.__version__)


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def test_what_the_documentation_shows_runs(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    names = {"run": run}
    ran = 0
    pages = [ROOT / "docs" / "python.md", ROOT / "book" / "src" / "python.md"]
    for page, block in [(page, block) for page in pages for block in blocks(page)]:
        for module in ("torch", "pytorch_metric_learning"):
            if f"import {module}" in block or f"from {module}" in block:
                if importlib.util.find_spec(module) is None:
                    break
        else:
            exec(compile(block, str(page), "exec"), names)
            ran += 1
    assert ran >= 6


@pytest.mark.parametrize("name", ["accuracy_calculator.py", "torch_loss.py", "train_and_search.py"])
def test_examples_run(name, monkeypatch, capsys):
    path = ROOT / "python" / "examples" / name
    for module in ("torch", "pytorch_metric_learning"):
        if f"import {module}" in path.read_text() or f"from {module}" in path.read_text():
            pytest.importorskip(module)
    monkeypatch.setattr("sys.argv", [str(path), "1000"])
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed.strip()
    for before, after in re.findall(r"Recall@1 (\d\.\d+) to (\d\.\d+)", printed):
        assert float(after) > float(before) + 0.2
