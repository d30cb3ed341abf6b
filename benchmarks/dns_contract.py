"""What a program that checks domains does: check them all, caches cold, and say how long it took and what it found.

Standard library only, because it runs in the peer's own environment.

    check HOST PORT COUNT   ask this name server alone; one line of JSON, as `Checked` in `dns_health.py`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.domains import names

Check = Callable[[str, int, Sequence[str]], int]
"""Address and port of the name server, and domains; returns with how many of them all was well."""


@dataclass(frozen=True, kw_only=True)
class Checker:
    """``how``: with which settings; ``source``: where these come from."""

    packages: tuple[str, ...]
    how: str
    source: str
    check: Check


def run(checker: Checker) -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["check", host, port, count]:
            domains = names(int(count))
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            well = checker.check(host, int(port), domains)
            seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        case _:
            sys.exit(__doc__)
    versions = {package: version(package) for package in checker.packages}
    said = {"seconds": seconds, "cpu_s": cpu_s, "well": well}
    print(json.dumps(said | {"versions": versions, "how": checker.how, "source": checker.source}))
