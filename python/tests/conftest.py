"""Shared by the tests: a trained run."""

import importlib.util
from pathlib import Path

import gradus
import pytest

_spec = importlib.util.spec_from_file_location("settings", Path(__file__).with_name("settings.py"))
_settings = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_settings)


@pytest.fixture(scope="session")
def small():
    """Settings of a run of seconds."""
    return dict(_settings.SMALL)


@pytest.fixture(scope="session")
def run(tmp_path_factory, small):
    """A trained run."""
    return gradus.train(small, out=tmp_path_factory.mktemp("runs") / "small")
