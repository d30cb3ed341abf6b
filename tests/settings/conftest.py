"""Loads settings from a file of the test, without variables of the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("POSTROAD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load settings from this text of a postroad.toml."""

    def load_text(text: str) -> Settings:
        path = tmp_path / "postroad.toml"
        path.write_text(text, encoding="utf-8")
        return Settings.load(path)

    return load_text
