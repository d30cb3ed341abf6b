"""Settings of preflight: checks that need the network."""

from __future__ import annotations

from pydantic import Field

from postroad.settings.types import NetworkText, Section


class PreflightSettings(Section):
    """Checks of a campaign before its launch that need the network. They are off by default."""

    links: bool = Field(
        default=False, description="whether the launch follows links; `--links` of a dry run does so once"
    )
    allowed_networks: tuple[NetworkText, ...] = Field(
        default=(), description="networks that are not public, but to which links may lead"
    )
    rspamd: str | None = Field(
        default=None,
        pattern=r"^https?://[!-~]+$",
        max_length=500,
        description="URL of an rspamd worker, whose score of each step is shown; unset: there is no score",
    )
