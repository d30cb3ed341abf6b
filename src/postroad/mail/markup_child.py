"""The child process of `postroad.mail.markup_process`: reads templates from standard input and writes the result."""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from postroad.errors import ConfigError
from postroad.mail.budget import MAX_LENGTH
from postroad.mail.markup import prepare_parts

CPU_S: Final = 5
MEMORY_BYTES: Final = 1 << 30


def _limit() -> None:
    """Limit the processor time and the memory of this process, and disable core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    with suppress(OSError, ValueError):  # Not every system can limit memory.
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def _result(request: dict[str, Any]) -> dict[str, str | None]:
    try:
        text, html = prepare_parts(**request)
    except ConfigError as error:
        return {"error": error.message, "where": error.where, "remedy": error.remedy}
    if max(len(text), len(html or "")) > MAX_LENGTH:
        return {"error": f"it makes more than {MAX_LENGTH:,} characters", "where": request["name"], "remedy": None}
    return {"text": text, "html": html}


if __name__ == "__main__":
    _limit()
    with os.fdopen(1, "w", encoding="utf-8") as out:
        json.dump(_result(json.load(sys.stdin.buffer)), out)
