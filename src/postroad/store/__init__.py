"""The truth: tables, and the set-based SQL on them. One module for each aggregate."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def declare_tables() -> None:
    """Import every module here, so that SQLModel's metadata has every table: migrations are compared with it."""
    for module in iter_modules(__path__):
        if not module.ispkg:
            import_module(f"{__name__}.{module.name}")
