"""What may be set about files that campaigns and flows name."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from postroad.settings.values import Section


class FilesSettings(Section):
    """Which files a campaign.yaml and the form of `import-audience` may name."""

    allowed: tuple[Path, ...] = Field(
        default=(Path("audiences"),), description="folders whose files may be named, beside the campaign's own"
    )
