"""A mail worker that obeys commands in a mail, for tests of the limits of its process.

::

    python -m tests.attacks.hostile_reader
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from postroad.bounce.mail_worker import handle_request
from postroad.confined import ProcessLimits, serve

LIMITS = ProcessLimits(cpu_s=0.3, wall_s=5.0, memory_mib=64)


def obey(request: bytes) -> bytes:
    if b"please-spin" in request:
        while True:
            pass
    if b"please-swallow" in request:
        return _swallow()
    if b"please-allocate" in request:
        return bytes(1 << 30)[:1]
    if b"please-recurse" in request:
        return obey_again(request)
    if b"please-exit" in request:
        os._exit(3)
    if b"please-die" in request:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"please-sleep" in request:
        if place := re.search(rb"please-sleep at <(.+?)>", request):
            Path(os.fsdecode(place[1])).touch()
        signal.pause()
    if b"please-lie" in request:
        return b"\xc1"
    return handle_request(request)


def obey_again(request: bytes) -> bytes:
    return obey_again(request) + b"x"


def _swallow() -> bytes:
    """As a library may that catches whatever is raised: the timer has to come again."""
    for _ in range(3):
        with suppress(Exception):
            while True:
                pass
    return b""


if __name__ == "__main__":
    serve(obey, LIMITS)
