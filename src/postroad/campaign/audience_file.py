"""Decides whether a launch imports the file that a campaign names for its audience."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from postroad.campaign.csv_file import open_file
from postroad.store.campaign import find_campaign
from postroad.store.engine import read


@dataclass(frozen=True, kw_only=True)
class AudienceFile:
    """The file that fills the audience of a campaign.

    ``to_import``: the launch imports the file. It does not if the file was imported completely. ``overtaken``: after
    such an import, another import changed recipients.
    """

    audience: str
    path: Path
    to_import: bool
    overtaken: bool = False

    @property
    def why_not(self) -> str:
        """Why a launch does not import the file again, as a sentence."""
        since = "; another file changed recipients since, and its values stay" if self.overtaken else ""
        return (
            f"{self.path} was imported before and is not imported again{since}. "
            f"`postroad audience import {self.audience} FILE` applies it again."
        )


def audience_file(engine: sa.Engine, campaign: str) -> AudienceFile | None:
    """Return the file that a campaign names for its audience, and whether a launch imports it.

    A launch imports the current content of the file once. Values that another file's import changed since then stay.

    Args:
        engine: Database of the campaigns.
        campaign: Name of the campaign.

    Returns:
        The file, or None if the campaign names no file, or its audience is frozen.
    """
    with read(engine) as connection:
        row = find_campaign(connection, campaign)
        if row.audience_file is None or row.launched_at is not None or row.freezing_at is not None:
            return None
        name = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :id"), {"id": row.audience_id}
        ).scalar_one()
        path = Path(row.audience_file)
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        values = {"id": row.audience_id, "path": str(path.resolve()), "sha256": digest}
        finished = connection.execute(_CURRENT, values).scalar()
        last = connection.execute(_LAST_OF_PATH, values).scalar()
    done = finished if finished is not None else last == digest
    return AudienceFile(audience=name, path=path, to_import=not done, overtaken=bool(done) and finished is None)


_CURRENT = sa.text(
    "SELECT finished_at IS NOT NULL FROM audience_import WHERE audience_id = :id AND current_key = :sha256"
)
_LAST_OF_PATH = sa.text(
    "SELECT CASE WHEN finished_at IS NOT NULL THEN sha256 END FROM audience_import "
    "WHERE audience_id = :id AND path = :path ORDER BY id DESC LIMIT 1"
)
