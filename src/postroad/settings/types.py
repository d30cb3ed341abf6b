"""Types of settings: durations, rates, names, addresses."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION_MS = 10 * 366 * 86_400_000
_DURATION = re.compile(r"(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")


def parse_duration_ms(text: str) -> int:
    """Parse a duration such as ``500ms``, ``30s``, ``15m``, ``2h`` or ``3d``.

    Args:
        text: The duration: a number with a unit.

    Returns:
        The duration in ms.

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a duration: write a number and ms, s, m, h or d, as in 15m")
    return round(Fraction(match["n"]) * _UNIT_MS[match["unit"]])


def duration_text(ms: int) -> str:
    """Return a duration as the settings write it, in the largest unit in which it is whole: ``90s``, ``1h``."""
    for unit in ("d", "h", "m", "s"):
        if ms % _UNIT_MS[unit] == 0:
            return f"{ms // _UNIT_MS[unit]}{unit}"
    return f"{ms}ms"


class RateSetting(BaseModel):
    """At most ``count`` in any ``per_ms`` milliseconds. Written ``100/1s`` or ``30/1h``."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    count: int = Field(gt=0)
    per_ms: int = Field(gt=0)

    @classmethod
    def parse(cls, text: str) -> RateSetting:
        count, slash, per = text.partition("/")
        if not slash or not count.strip().isdecimal() or int(count) == 0:
            raise ValueError(f"{text[:40]!r} is not a rate: write a count, a slash and a duration, as in 100/1s")
        per_ms = parse_duration_ms(per if per.strip()[:1].isdecimal() else f"1{per.strip()}")
        if per_ms == 0:
            raise ValueError(f"{text!r} is not a rate: its duration is zero")
        return cls(count=int(count), per_ms=per_ms)

    def __str__(self) -> str:
        return f"{self.count}/{duration_text(self.per_ms)}"


@cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA database, the same on every host.

    They come from the package tzdata, because a system's folder also has names such as `localtime`, and may ignore
    case. `Factory` is excluded: it is a placeholder for a zone that is not set.

    Returns:
        The names.
    """
    names = files("tzdata").joinpath("zones").read_text("ascii").split()
    return frozenset(names) - {"Factory"}


def _zone(name: str) -> str:
    if name not in time_zones():
        raise ValueError(f"{name[:64]!r} is not a time zone of the IANA database, such as Europe/Berlin")
    return name


def _rate(value: object) -> object:
    return value if isinstance(value, RateSetting | dict) else RateSetting.parse(str(value))


DurationMs = Annotated[int, BeforeValidator(lambda v: parse_duration_ms(v) if isinstance(v, str) else v)]
RateField = Annotated[RateSetting, BeforeValidator(_rate)]
ZoneName = Annotated[str, AfterValidator(_zone)]

# Texts for header fields and the database have no control characters, and are no longer than their column.
MailAddress = Annotated[
    str, Field(pattern=r"^[^@\s<>\x00-\x1f\x7f]+@[^@\s<>\x00-\x1f\x7f]+\.[^@\s<>\x00-\x1f\x7f]+$", max_length=320)
]
REPLY_TOKEN = "{token}"  # noqa: S105  (a placeholder)
MAX_TOKEN_CHARACTERS = 33
"""Length of a token: sixteen digits, a hyphen, sixteen letters."""


def _reply_address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    bare = local.replace(REPLY_TOKEN, "", 1)
    if "{" in bare + domain or "}" in bare + domain:
        raise ValueError("only one {token} is allowed in braces, before the @")
    if bare != local:
        if local == REPLY_TOKEN or local[: local.index(REPLY_TOKEN)][-1:].isalnum() or not local.endswith(REPLY_TOKEN):
            raise ValueError("{token} must follow a name and a separator, before the @: hello+{token}@example.com")
        if len(bare) + MAX_TOKEN_CHARACTERS > MAX_LOCAL_PART:
            raise ValueError(f"at most {MAX_LOCAL_PART - MAX_TOKEN_CHARACTERS} characters are allowed before {{token}}")
    return text


MAX_LOCAL_PART = 64  # RFC 5321 §4.5.3.1.1
# A Reply-To address. With {token} in it each touch has a separate address.
ReplyAddress = Annotated[MailAddress, AfterValidator(_reply_address)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def section_of_defaults() -> Any:
    """Return the field of a section that may be missing. Its model is built once, as a part of the settings.

    A section as the default would be built on its own as well, which takes a start-up longer.
    """
    return Field(default={}, validate_default=True)


def ip_address_text(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def _network_text(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an IP address nor a network: {error}") from None


NetworkText = Annotated[str, AfterValidator(_network_text)]
IpAddress = Annotated[str, AfterValidator(ip_address_text)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]+$", max_length=255)]
DkimSelector = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=190)]
