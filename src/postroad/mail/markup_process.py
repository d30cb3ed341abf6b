"""Processes HTML, MJML and CSS in a child process with limits.

The tools are native code that recurses into nested elements. 20,000 nested elements crash their process with a
segmentation fault, and unclosed elements of many kinds take quadratic time and memory. A worker compiles the steps of
every campaign, so one template could crash every worker.
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

_WALL_S: Final = 60  # much longer than the processor time, for a busy machine
_REMEDY = "Nest fewer elements, and close every element."


def prepare_in_subprocess(*, text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    """Return the templates of the text part and the HTML part of a step. See `postroad.mail.markup.prepare_parts`.

    Args:
        text: The author's template of the text. None: it is derived from the HTML.
        html: The author's template of the HTML. Its styles are inlined.
        mjml: The author's template in MJML, from which the HTML is compiled.
        name: Campaign and step, for errors.

    Returns:
        The templates of text and HTML.

    Raises:
        ConfigError: A template is invalid, or processing it exceeds the limits.
    """
    source = mjml if mjml is not None else html
    if text is not None and (source is None or (mjml is None and "<style" not in source.lower())):
        return text, source
    if source is not None and len(source) > MAX_LENGTH:
        raise ConfigError(f"the template has more than {MAX_LENGTH:,} characters", where=name)
    return _run_child(text, html, mjml, name)


@lru_cache(maxsize=32)  # A step is compiled once for each sender, and by the preflight check.
def _run_child(text: str | None, html: str | None, mjml: str | None, name: str) -> tuple[str, str | None]:
    request = json.dumps({"text": text, "html": html, "mjml": mjml, "name": name})
    command = [sys.executable, "-P", "-m", "postroad.mail.markup_child"]
    try:
        done = subprocess.run(command, input=request.encode(), capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"its HTML is not ready after {_WALL_S} s", where=name, remedy=_REMEDY) from None
    if done.returncode != 0:
        limits = f"{CPU_S} s of processor time and {MEMORY_BYTES >> 20:,} MiB"
        raise ConfigError(f"its HTML cannot be processed within {limits}", where=name, remedy=_REMEDY)
    result = json.loads(done.stdout)
    if "error" in result:
        raise ConfigError(result["error"], where=result["where"], remedy=result["remedy"])
    return result["text"], result["html"]
