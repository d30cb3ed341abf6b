"""Renders the templates. All values are escaped: what a person or a server sent is shown as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import CodeType
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import BytecodeCache, Environment, FunctionLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup, escape

from postroad.clock import Clock
from postroad.console.screen import NavSection, Screen
from postroad.printable import counted, printable

_FOLDER = files("postroad.console")
_UTC_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) UTC\b")
STATIC_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, kw_only=True)
class StaticFile:
    """A file that the console serves. Its URL contains a hash of the content, so a browser may keep it forever."""

    name: str
    body: bytes
    media_type: str

    @cached_property
    def url(self) -> str:
        """Path of the file. Each page names several: the content is hashed once."""
        return f"/static/{sha256(self.body).hexdigest()[:16]}/{self.name}"


def static_files() -> Mapping[str, StaticFile]:
    """Return the files of the folder `static`, by name."""
    found = {}
    for entry in (_FOLDER / "static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in STATIC_TYPES:
            found[entry.name] = StaticFile(name=entry.name, body=entry.read_bytes(), media_type=STATIC_TYPES[suffix])
    return found


class _CompiledTemplates(BytecodeCache):
    """Templates that this process compiled, for the consoles that it opens one after the other, as tests do."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _CompiledTemplates()


class Templates:
    """Renders pages.

    Args:
        screens: All screens, for the navigation.
        zone: Zone in which times are shown.
        clock: Tells the age of times.
    """

    def __init__(self, screens: Sequence[Screen], zone: ZoneInfo, clock: Clock) -> None:
        self._zone = zone
        self._clock = clock
        self.static = static_files()
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=FunctionLoader(_template_source),
            trim_blocks=True,
            lstrip_blocks=True,
            bytecode_cache=_COMPILED,
        )
        self._environment.filters.update(
            number=format_number,
            share=format_share,
            duration=format_duration,
            size=format_bytes,
            visible=visible,
            with_code=with_code,
            path=lambda text: quote(str(text), safe=""),
            local_times=self.local_times,
        )
        self._environment.globals.update(
            time_tag=self.time_tag,
            age=self.age,
            counted=counted,
            static=lambda name: self.static[name].url,
            navigation=navigation(screens),
            paths={screen.name: screen.path for screen in screens},
            zone_name=zone.key,
        )

    def render(self, name: str, /, **values: Any) -> str:
        """Return the rendered template."""
        return self._environment.get_template(name).render(**values)

    def time_tag(self, value: datetime | None, *, age: bool = False) -> Markup:
        """Return a `time` element in the zone of the settings, with the zone's abbreviation. An em dash for None.

        Args:
            value: The time.
            age: Show how long ago it was, and the time as the title.
        """
        if value is None:
            return Markup("—")
        local = value.astimezone(self._zone)
        shown = f"{local:%Y-%m-%d %H:%M} {local:%Z}"
        exact = f"{local:%Y-%m-%d %H:%M:%S} {local:%Z}"
        text = self.age(value) if age else shown
        return Markup('<time datetime="{}" title="{}">{}</time>').format(value.isoformat(), exact, text)

    def local_times(self, text: str) -> str:
        """Return a text with its times in UTC, such as ``2026-12-02 23:01:10 UTC``, in the zone of the settings."""

        def local(found: re.Match[str]) -> str:
            at = datetime.fromisoformat(found[1]).replace(tzinfo=UTC).astimezone(self._zone)
            return f"{at:%Y-%m-%d %H:%M} {at:%Z}"

        return _UTC_TIME.sub(local, text)

    def age(self, value: datetime) -> str:
        """Return how long ago a time was, or in how long it will be, such as ``3 min ago``."""
        seconds = (self._clock.now() - value).total_seconds()
        if abs(seconds) < 1:
            return "now"
        text = format_duration(abs(seconds))
        return f"{text} ago" if seconds > 0 else f"in {text}"


def _template_source(name: str) -> tuple[str, str, None] | None:
    folder: Traversable = _FOLDER / "templates"
    file = folder / name
    return (file.read_text(encoding="utf-8"), name, None) if file.is_file() else None


def navigation(screens: Sequence[Screen]) -> list[tuple[NavSection, list[Screen]]]:
    """Return the screens of each section of the navigation."""
    members = {section: [screen for screen in screens if screen.section is section] for section in NavSection}
    return [(section, found) for section, found in members.items() if found]


def visible(text: object, keep: str = "") -> str:
    """Return a text with its control characters as visible escapes. The template escapes its markup."""
    return printable(str(text), keep=keep)


def with_code(text: object, keep: str = "") -> Markup:
    """Return a text of ours with what is between backticks as code. All else is escaped, as by `visible`."""
    parts = visible(text, keep).split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))  # One has no end: it is a character of the text.
    shown = (Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts))
    return Markup("").join(shown)


def format_number(value: float | None) -> str:
    """Return a number with separators of thousands. An em dash for None."""
    if value is None:
        return "—"
    return f"{value:,}" if isinstance(value, int) else _rounded(float(value))


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"


def format_share(part: float, whole: float) -> str:
    """Return a share in percent: ``0 %``, ``<0.1 %``, ``3.4 %``, ``100 %``. An em dash if the whole is 0."""
    if not whole:
        return "—"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1 %"
    if percent >= 99.95 and part < whole:
        return ">99.9 %"
    return f"{percent:.1f} %".replace(".0 %", " %")


def format_duration(seconds: float | timedelta) -> str:
    """Return a duration with at most two units, such as ``40 s``, ``5 min``, ``3 h 20 min``, ``2 d 4 h``."""
    total = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if total < 60:
        return f"{total} s"
    days, rest = divmod(total, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes = rest // 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def format_bytes(count: float) -> str:
    """Return a size, such as ``12 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
