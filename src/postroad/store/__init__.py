"""The database: its tables, and the set-based SQL on them. One module for each aggregate."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def declare_tables() -> None:
    """Import every module of this package, so that SQLModel's metadata has every table, and set its conditions."""
    from sqlmodel import SQLModel

    from postroad.store.types import PartialIndex

    for module in iter_modules(__path__):
        if not module.ispkg:
            import_module(f"{__name__}.{module.name}")
    for table in SQLModel.metadata.sorted_tables:
        for index in table.indexes:
            if isinstance(index, PartialIndex):
                index.set_condition()
