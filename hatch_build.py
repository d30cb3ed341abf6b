"""Puts the project files into the wheel, so that it works without a checkout.

They are in a folder of the package, where `postroad.local.project_files` finds them: at the top level of site-packages,
other packages could also have the names `flows`, `tasks` and `deployments`. A pattern names the wanted files, because a
folder may contain files that are not in git, such as secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "postroad/_project"
PATTERNS = (
    "prefect.yaml",
    "postroad.toml",
    "flows/*.py",
    "tasks/*.py",
    "deployments/*.py",
    "examples/welcome/[!.]*",
    "examples/trial/[!.]*",
)


class ProjectFilesHook(BuildHookInterface):
    """Adds the project files to a wheel. An editable installation uses those of its checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files that the wheel has in addition to the package.

        Args:
            version: ``standard``, or ``editable``.
            build_data: Input of the build, which is changed.

        Raises:
            FileNotFoundError: A pattern matches no file, so the wheel could not run.
        """
        if version == "editable":
            return
        root = Path(self.root)
        for pattern in PATTERNS:
            files = [path for path in root.glob(pattern) if path.is_file()]
            if not files:
                raise FileNotFoundError(f"the wheel needs {pattern}, and there is no such file in {root}")
            for path in files:
                build_data["force_include"][str(path)] = f"{FOLDER}/{path.relative_to(root).as_posix()}"
