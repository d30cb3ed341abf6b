"""What a program requests: one message of a campaign to one recipient. It is checked before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from postroad.campaign.files import MAX_FILES_BYTES
from postroad.delivery.job import AttachedFile
from postroad.errors import DataError
from postroad.field_types import WRITE, FieldType, is_valid
from postroad.mail.address import normalise_address
from postroad.mail.template import RESERVED
from postroad.store.message_request import json_text

MAX_KEY_CHARACTERS: Final = 200
MAX_FIELDS: Final = 100
MAX_FIELD_CHARACTERS: Final = 10_000
MAX_ATTACHMENTS: Final = 20

_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_CHARACTERS}}}", re.ASCII)
_FILE_NAME: Final = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")
_PART: Final = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # RFC 6838 §4.2
_MEDIA_TYPE: Final = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_COMPOSITE: Final = ("message/", "multipart/")
"""RFC 2046 §5.2: these types must not be encoded in base64."""


class FieldError(DataError):
    """A field of a request is not valid. ``field``: its path, as in ``fields.amount``."""

    def __init__(self, field_path: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message, where=field_path, remedy=remedy)
        self.field = field_path


class KeyReusedError(FieldError):
    """The idempotency key belongs to a request with other content."""


@dataclass(frozen=True, kw_only=True)
class RequestedFile:
    """An attachment of one message."""

    name: str
    media_type: str
    octets: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """The SHA-256 of its content, in hexadecimal."""
        return sha256(self.octets).hexdigest()


@dataclass(frozen=True, kw_only=True)
class MessageOrder:
    """One requested message.

    Attributes:
        key: The idempotency key, unique in the installation. A repetition with the same content sends nothing more.
        campaign: Name of a running campaign with `entry: api`.
        to: Address of the recipient, normalised.
        fields: Merge fields of this message, in addition to those of the recipient.
        files: Attachments, in addition to those of the step.
        transactional: The recipient must get it, also after an unsubscribe. The campaign must allow it.
    """

    key: str
    campaign: str
    to: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[RequestedFile] = ()
    transactional: bool = False

    @property
    def attached(self) -> list[AttachedFile]:
        """The attachments, without their content."""
        return [AttachedFile(name=file.name, media_type=file.media_type, digest=file.digest) for file in self.files]

    @property
    def digest(self) -> str:
        """The SHA-256 of everything but the key. Two requests with the same digest ask for the same message."""
        files = [[file.name, file.media_type, file.digest] for file in self.attached]
        content = [self.campaign, self.to, dict(self.fields), files, self.transactional]
        return sha256(json_text(content).encode()).hexdigest()


def checked_order(order: MessageOrder) -> MessageOrder:
    """Return an order with the normalised address.

    Args:
        order: The order, as a client wrote it.

    Returns:
        The order.

    Raises:
        FieldError: A field is not valid.
    """
    if not _KEY.fullmatch(order.key):
        what = f"an idempotency key has 1 to {MAX_KEY_CHARACTERS} visible ASCII characters"
        raise FieldError("Idempotency-Key", what)
    require_fields(order.fields)
    _require_files(order.files)
    return MessageOrder(
        key=order.key,
        campaign=order.campaign,
        to=checked_address(order.to, "to"),
        fields=order.fields,
        files=[_with_type(file) for file in order.files],
        transactional=order.transactional,
    )


def checked_address(text: str, field_path: str) -> str:
    """Return a normalised address. Raises FieldError with the path of its field for another text."""
    try:
        return normalise_address(text)
    except DataError as error:
        raise FieldError(field_path, f"it is not a valid address: {error.message}") from None


def require_fields(fields: Mapping[str, str], *, path: str = "fields") -> None:
    """Check names and lengths of merge fields.

    Args:
        fields: The fields.
        path: Path of the object that contains them.

    Raises:
        FieldError: A name is not valid or is reserved, a value is too long, or there are too many.
    """
    if len(fields) > MAX_FIELDS:
        raise FieldError(path, f"there are more than {MAX_FIELDS} fields")
    for name, value in fields.items():
        place = f"{path}.{name[:100]}"
        if not name.isidentifier() or len(name) > 100:
            raise FieldError(place, "a field's name has letters, digits and _, and does not begin with a digit")
        if name in RESERVED:
            raise FieldError(place, "Postroad provides this field", remedy="Give your field another name.")
        if len(value) > MAX_FIELD_CHARACTERS:
            raise FieldError(place, f"it has more than {MAX_FIELD_CHARACTERS:,} characters")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise FieldError(place, "it contains a character that no message can contain")


def require_types(fields: Mapping[str, str], types: Mapping[str, FieldType], *, path: str = "fields") -> None:
    """Raise FieldError for a value that is not of the declared type of its field. An empty value is allowed."""
    for name, value in fields.items():
        kind = types.get(name, FieldType.TEXT)
        if value and not is_valid(value, kind):
            raise FieldError(f"{path}.{name}", f"it is not {WRITE[kind]}")


def _require_files(files: Sequence[RequestedFile]) -> None:
    if len(files) > MAX_ATTACHMENTS:
        raise FieldError("attachments", f"there are more than {MAX_ATTACHMENTS} attachments")
    if sum(len(file.octets) for file in files) > MAX_FILES_BYTES:
        raise FieldError(
            "attachments",
            f"they have more than {MAX_FILES_BYTES:,} bytes together",
            remedy="Put a link into the message instead.",
        )
    for number, file in enumerate(files):
        if not _FILE_NAME.fullmatch(file.name):
            raise FieldError(f"attachments.{number}.name", "it has 1 to 200 characters, without slashes and controls")
        if not _MEDIA_TYPE.fullmatch(file.media_type):
            raise FieldError(f"attachments.{number}.type", "it is not a media type, as in application/pdf")


def _with_type(file: RequestedFile) -> RequestedFile:
    if not file.media_type.lower().startswith(_COMPOSITE):
        return file
    return RequestedFile(name=file.name, media_type="application/octet-stream", octets=file.octets)
