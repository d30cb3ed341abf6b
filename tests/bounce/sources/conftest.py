"""Fixtures of this folder."""

from __future__ import annotations

from tests.bounce.sources.listening import opened  # noqa: F401
