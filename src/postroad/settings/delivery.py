"""Settings of delivery."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field

from postroad.settings.types import MAX_DURATION_MS, DurationMs, NetworkText, Section


class DeliverySettings(Section):
    """Expiry of messages, and how far ahead touches are enqueued."""

    horizon_ms: DurationMs = Field(
        default=900_000, ge=0, le=MAX_DURATION_MS, description="touches that are due within it are enqueued"
    )
    expire_ms: DurationMs = Field(
        default=259_200_000, gt=0, le=MAX_DURATION_MS, description="age at which a touch that was not accepted expires"
    )
    shaping: Path | None = Field(default=None, description="a shaping.toml that overrides the built-in one")
    destination_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="concurrent jobs for one destination, of each worker process; unset: half of all jobs",
    )
    allowed_networks: tuple[NetworkText, ...] = Field(
        default=(), description="networks that are not public, but to which direct routes may deliver"
    )

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        return self if self.shaping is None else self.model_copy(update={"shaping": base / self.shaping})
