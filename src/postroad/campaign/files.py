"""Reads the attachments and inline images of a step when a campaign is applied. The database stores them."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from postroad.campaign.file_access import FileRules, read_named
from postroad.errors import ConfigError
from postroad.mail.body import File

MAX_FILES_BYTES = 10_000_000
"""Limit of all files of one step. In base64 it is 13.7 MB. Large providers reject 20 or 25 MB, many hosts less."""

_MEDIA_TYPE_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # RFC 6838 §4.2
_CID = re.compile(r"""["'(=]\s{0,100}cid:([^"')\s>{]+)""", re.IGNORECASE)
# RFC 2046 §5.2: these types must not be encoded in base64, so such files are sent as application/octet-stream.
_COMPOSITE = ("message/", "multipart/")


def _entry(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class AttachmentDefinition(BaseModel):
    """An attached file. If only a path is given, its name is that of the path, and its type that of the extension."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]+$")
    type: str | None = Field(default=None, pattern=rf"^{_MEDIA_TYPE_NAME}/{_MEDIA_TYPE_NAME}$")


class InlineDefinition(BaseModel):
    """An image that the HTML shows: ``<img src="cid:NAME">``. If only a path is given, NAME is the path's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    cid: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._@+-]{1,100}$")
    type: str | None = Field(default=None, pattern=rf"^{_MEDIA_TYPE_NAME}/{_MEDIA_TYPE_NAME}$")


Attachments = tuple[Annotated[AttachmentDefinition, BeforeValidator(_entry)], ...]
Inlines = tuple[Annotated[InlineDefinition, BeforeValidator(_entry)], ...]


@dataclass(frozen=True, kw_only=True)
class StepFiles:
    """The entries of a step's settings on its files, and the contents of the files by digest."""

    settings: dict[str, Any]
    octets: dict[str, bytes]


def read_step_files(
    folder: Path, rules: FileRules, attachments: Attachments, inlines: Inlines, *, where: str
) -> StepFiles:
    """Read the files of a step.

    Args:
        folder: Folder that paths are relative to.
        rules: Folders that the files may be in.
        attachments: Definitions of attachments.
        inlines: Definitions of inline images.
        where: File, line and field of the step, for errors.

    Returns:
        The entries and the contents of the files.

    Raises:
        ConfigError: A file cannot be read or is too large, or two images have the same cid.
    """
    entries: list[dict[str, Any]] = []
    octets: dict[str, bytes] = {}
    left_bytes = MAX_FILES_BYTES
    definitions: list[tuple[str, AttachmentDefinition | InlineDefinition]] = [
        *((f"{where}.attachments.{number}", attachment) for number, attachment in enumerate(attachments, start=1)),
        *((f"{where}.inline.{number}", inline) for number, inline in enumerate(inlines, start=1)),
    ]
    for field, definition in definitions:
        content = _read(folder / definition.file, rules, left_bytes, where=field)
        left_bytes -= len(content)
        digest = sha256(content).hexdigest()
        octets[digest] = content
        entries.append(_file_entry(definition, digest, where=field))
    if len({entry["cid"] for entry in entries if entry["cid"]}) < len(inlines):
        raise ConfigError("two inline images have the same cid", where=f"{where}.inline", remedy="Name another cid.")
    return StepFiles(settings={"files": entries} if entries else {}, octets=octets)


def _file_entry(definition: AttachmentDefinition | InlineDefinition, digest: str, *, where: str) -> dict[str, Any]:
    name, cid = definition.file.name, None
    if isinstance(definition, AttachmentDefinition):
        name = definition.name or name
    else:
        try:
            cid = definition.cid or InlineDefinition(file=definition.file, cid=name).cid
        except ValueError:
            raise ConfigError(
                f"{name!r} cannot be a cid", where=where, remedy="Name one: {file: …, cid: logo}."
            ) from None
    return {"name": name, "type": definition.type or _guess_type(name), "digest": digest, "cid": cid}


def _guess_type(name: str) -> str:
    # A new MimeTypes has only Python's table and not that of the machine, so that every host gives the same result.
    media_type, encoding = mimetypes.MimeTypes().guess_type(name)
    if media_type is None or encoding is not None or media_type.startswith(_COMPOSITE):
        return "application/octet-stream"
    return media_type


def _read(path: Path, rules: FileRules, left_bytes: int, *, where: str) -> bytes:
    content = read_named(path, rules, left_bytes, where=where)
    if len(content) > left_bytes:
        raise ConfigError(
            f"with {path} the files of this step have more than {MAX_FILES_BYTES:,} bytes",
            where=where,
            remedy="Put a link into the message instead.",
        )
    return content


def require_images(html: str, settings: dict[str, Any], *, where: str) -> None:
    """Raise ConfigError for an image that the HTML references by ``cid:`` but that the step does not have."""
    known = {entry["cid"] for entry in settings.get("files", ())}
    for cid in _CID.findall(html):
        if cid not in known:
            raise ConfigError(
                f"the HTML shows cid:{cid}, but no inline image has that name",
                where=where,
                remedy="Add it to inline, as in: inline: [images/logo.png].",
            )


def step_files(entries: Sequence[dict[str, Any]], octets: dict[str, bytes]) -> list[File]:
    """Return the files of a step from the entries of its settings and the contents by digest."""
    return [
        File(name=entry["name"], media_type=entry["type"], octets=octets[entry["digest"]], content_id=entry["cid"])
        for entry in entries
    ]
