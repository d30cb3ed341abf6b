"""Finds the files that are not part of the package: flows, tasks, deployments, prefect.yaml and the examples.

A checkout has them at its top level. A wheel has them in a folder of the package, because in site-packages other
packages could also have the names `flows` and `tasks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postroad.errors import StateError

PACKAGE: Final = Path(__file__).absolute().parents[1]
IN_WHEEL: Final = "_project"
"""Name of the folder in a wheel. `hatch_build.py` makes it."""


def project_files() -> Path:
    """Return the folder that contains `flows`, `tasks`, `deployments`, `prefect.yaml`, `postroad.toml` and `examples`.

    They are of the same version as the package. To import the flows, put the folder on PYTHONPATH.

    Returns:
        The folder.

    Raises:
        StateError: The installation has no such folder.
    """
    for folder in (PACKAGE / IN_WHEEL, PACKAGE.parents[1]):
        if (folder / "prefect.yaml").is_file() and (folder / "flows").is_dir():
            return folder
    raise StateError(
        "this installation of Postroad has no flows",
        where=str(PACKAGE),
        remedy="Install the wheel that `uv build` makes, or run the command in a checkout.",
    )
