"""The services of deployments/compose/compose.yaml, as Compose reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments/compose"
CONTAINERFILE = ROOT / "deployments/image/Containerfile"
OTHERS = ("postgres", "valkey")
"""Services of images of others."""
ONE_SHOTS = ("migrate", "bootstrap")


@dataclass(frozen=True, kw_only=True)
class ComposeService:
    """A service, with its variables interpolated by their defaults."""

    name: str
    fields: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        return [*map(str, self.fields.get("command", ()))]

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.fields.get("environment", {}))

    @property
    def health_command(self) -> list[str] | None:
        """Command of the health check that is no shell."""
        kind, *words = self.fields.get("healthcheck", {}).get("test", [""])
        return words if kind == "CMD" else None

    @property
    def stop_within_s(self) -> int:
        return int(self.fields["stop_grace_period"].removesuffix("s"))


def interpolate(value: Any) -> Any:
    """Replace ${NAME:-default} by the default, and $$ by a dollar."""
    match value:
        case str():
            return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value).replace("$$", "$")
        case list():
            return [interpolate(item) for item in value]
        case dict():
            return {key: interpolate(item) for key, item in value.items()}
    return value


def compose(file: str = "compose.yaml") -> dict[str, Any]:
    """Return a file without its extensions."""
    content = interpolate(yaml.safe_load((FOLDER / file).read_text(encoding="utf-8")))
    return {key: value for key, value in content.items() if not key.startswith("x-")}


def services() -> dict[str, ComposeService]:
    return {name: ComposeService(name=name, fields=fields) for name, fields in compose()["services"].items()}


def image_environment() -> dict[str, str]:
    """Return the variables of the image."""
    last_stage = CONTAINERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in last_stage.splitlines() if line.startswith("ENV ")]
    return dict(word.split("=", 1) for line in lines for word in line.split())
