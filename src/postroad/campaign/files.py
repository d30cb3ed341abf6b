"""Attachments and inline images of a step: read when the campaign is applied, and kept in the store."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from postroad.campaign.reading import FileRules, read_named
from postroad.errors import ConfigError
from postroad.mail.body import File

MAX_FILES_BYTES = 10_000_000
"""Of all files of one step. In base64 that is 13.7 MB; providers refuse from 20 or 25 MB on, and many hosts before."""

_WORD_OF_TYPE = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # RFC 6838 §4.2
_CID = re.compile(r"""["'(=]\s{0,100}cid:([^"')\s>{]+)""", re.IGNORECASE)
# RFC 2046 §5.2: neither may be base64. As files they are octets.
_COMPOSITE = ("message/", "multipart/")


def _entry(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class AttachmentDefinition(BaseModel):
    """A file that goes along. Written as its path alone, it has the path's name and the type of its ending."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]+$")
    type: str | None = Field(default=None, pattern=rf"^{_WORD_OF_TYPE}/{_WORD_OF_TYPE}$")


class InlineDefinition(BaseModel):
    """An image that the HTML shows: ``<img src="cid:NAME">``. Written as its path alone, NAME is the path's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    cid: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._@+-]{1,100}$")
    type: str | None = Field(default=None, pattern=rf"^{_WORD_OF_TYPE}/{_WORD_OF_TYPE}$")


Attachments = tuple[Annotated[AttachmentDefinition, BeforeValidator(_entry)], ...]
Inlines = tuple[Annotated[InlineDefinition, BeforeValidator(_entry)], ...]


@dataclass(frozen=True, kw_only=True)
class StepFiles:
    """What the settings of a step say of its files, and the octets by their digests."""

    settings: dict[str, Any]
    octets: dict[str, bytes]


def read_step_files(
    folder: Path, rules: FileRules, attachments: Attachments, inlines: Inlines, *, where: str
) -> StepFiles:
    """Read the files of a step, as the rules allow. Raises ConfigError with file, line and field."""
    entries: list[dict[str, Any]] = []
    octets: dict[str, bytes] = {}
    left_bytes = MAX_FILES_BYTES
    all_wanted: list[tuple[str, AttachmentDefinition | InlineDefinition]] = [
        *((f"{where}.attachments.{number}", wanted) for number, wanted in enumerate(attachments)),
        *((f"{where}.inline.{number}", wanted) for number, wanted in enumerate(inlines)),
    ]
    for place, wanted in all_wanted:
        content = _read(folder / wanted.file, rules, left_bytes, where=place)
        left_bytes -= len(content)
        digest = sha256(content).hexdigest()
        octets[digest] = content
        entries.append(_described(wanted, digest, where=place))
    if len({entry["cid"] for entry in entries if entry["cid"]}) < len(inlines):
        raise ConfigError("two inline images have the same cid", where=f"{where}.inline", remedy="Name another cid.")
    return StepFiles(settings={"files": entries} if entries else {}, octets=octets)


def _described(wanted: AttachmentDefinition | InlineDefinition, digest: str, *, where: str) -> dict[str, Any]:
    name, cid = wanted.file.name, None
    if isinstance(wanted, AttachmentDefinition):
        name = wanted.name or name
    else:
        try:
            cid = wanted.cid or InlineDefinition(file=wanted.file, cid=name).cid
        except ValueError:
            raise ConfigError(
                f"{name!r} cannot be a cid", where=where, remedy="Name one: {file: …, cid: logo}."
            ) from None
    return {"name": name, "type": wanted.type or _type_of(name), "digest": digest, "cid": cid}


def _type_of(name: str) -> str:
    # Of Python's own table, and not of this machine's: every host is to say the same.
    found = mimetypes.MimeTypes().guess_type(name)
    if found[0] is None or found[1] is not None or found[0].startswith(_COMPOSITE):
        return "application/octet-stream"
    return found[0]


def _read(path: Path, rules: FileRules, left_bytes: int, *, where: str) -> bytes:
    content = read_named(path, rules, left_bytes, where=where)
    if len(content) > left_bytes:
        raise ConfigError(
            f"with {path} the files of this step have more than {MAX_FILES_BYTES:,} bytes",
            where=where,
            remedy="Put a link into the message in its place.",
        )
    return content


def require_images(html: str, settings: dict[str, Any], *, where: str) -> None:
    """Raises ConfigError for an image that the HTML shows by ``cid:``, and that is not there."""
    there = {entry["cid"] for entry in settings.get("files", ())}
    for cid in _CID.findall(html):
        if cid not in there:
            raise ConfigError(
                f"the HTML shows cid:{cid}, and no inline image has that name",
                where=where,
                remedy="Add it to inline, as in: inline: [images/logo.png].",
            )


def step_files(entries: Sequence[dict[str, Any]], octets: dict[str, bytes]) -> list[File]:
    """Return the files of a step from what its settings say, and the octets by their digests."""
    return [
        File(name=each["name"], media_type=each["type"], octets=octets[each["digest"]], content_id=each["cid"])
        for each in entries
    ]
