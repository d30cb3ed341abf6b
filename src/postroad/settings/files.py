"""Settings of the files that campaigns and flows may name."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from postroad.settings.types import Section


class FilesSettings(Section):
    """Files that a campaign.yaml and the parameters of `import-audience` may name."""

    allowed: tuple[Path, ...] = Field(
        default=(Path("audiences"),),
        description="folders whose files may be named, in addition to the campaign's folder",
    )
