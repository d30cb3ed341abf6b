"""What a run was: the machine, the versions, the command; and its place in README.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.contestants import Settings

README = Path(__file__).parent / "README.md"


def circumstances(server: str, command: str) -> str:
    """One line: when, on what, with what. The load says whether the machine was quiet."""
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {load}"
    versions = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {server}"
    return f"{datetime.now(UTC):%Y-%m-%d}: {machine}; {versions}; `{command}`"


def settings_table(settings: dict[str, Settings], missing: dict[str, str]) -> str:
    """Versions and settings of every contestant; of one that has no figures, why."""
    lines = ["| | versions | enqueue | worker | settings after |", "|---|---|---|---|---|"]
    for name, its in settings.items():
        if name not in missing:
            versions = ", ".join(f"{package} {version}" for package, version in its.versions.items())
            lines.append(f"| {name} | {versions} | {its.enqueue} | {its.worker} | {its.source} |")
    lines += [f"| {name} | no figures: {reason} | | | |" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


def write_section(name: str, parts: Sequence[str], page: Path = README) -> None:
    """Put the parts between the markers of this name."""
    text = page.read_text("utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    between = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    body = begin + "\n" + "\n\n".join(part.strip() for part in parts) + "\n" + end
    written, found = between.subn(lambda _: body, text)
    if found != 1:
        raise ValueError(f"{page.name} needs {begin} and {end} once, not {found} times")
    page.write_text(written, "utf-8")


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return model.group(1) if model else platform.machine()
