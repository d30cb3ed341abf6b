"""HTML, MJML and CSS are worked on in a child process with limits.

The tools are native code and follow the nesting of what they read: 20,000 elements in each other end their process with
a segmentation fault, and unclosed elements of many kinds take time and memory by their square. A worker compiles the
steps of every campaign, so one template would end every worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from typing import Final

from postroad.errors import ConfigError
from postroad.mail.budget import MAX_LENGTH
from postroad.mail.markup_child import CPU_S, MEMORY_BYTES

_WALL_S: Final = 60  # A busy machine may take so much longer than the processor time.
_REMEDY = "Nest fewer elements in each other, and close those that begin."


def finish(*, text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    """Return the templates of text and HTML as messages have them, from those that were written.

    Args:
        text: The template of the text. None: it is made of the HTML.
        html: The template of the HTML; its styles are moved onto its elements.
        mjml: The template of MJML, of which the HTML is made.
        name: What they are of, for errors.

    Raises:
        ConfigError: They cannot be worked on, or not within the limits.
    """
    source = mjml if mjml is not None else html
    if text is not None and (source is None or (mjml is None and "<style" not in source.lower())):
        return text, source
    if source is not None and len(source) > MAX_LENGTH:
        raise ConfigError(f"the template has more than {MAX_LENGTH:,} characters", where=name)
    return _finish(text, html, mjml, name)


@lru_cache(maxsize=32)  # A step is compiled once for each sender, and checked before it is sent.
def _finish(text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    order = json.dumps({"text": text, "html": html, "mjml": mjml, "name": name})
    command = [sys.executable, "-P", "-m", "postroad.mail.markup_child"]
    try:
        done = subprocess.run(command, input=order.encode(), capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"its HTML is not ready after {_WALL_S} s", where=name, remedy=_REMEDY) from None
    if done.returncode != 0:
        limits = f"{CPU_S} s of processor time and {MEMORY_BYTES >> 20:,} MiB"
        raise ConfigError(f"its HTML cannot be worked on within {limits}", where=name, remedy=_REMEDY)
    result = json.loads(done.stdout)
    if "error" in result:
        raise ConfigError(result["error"], where=result["where"], remedy=result["remedy"])
    return result["text"], result["html"]
