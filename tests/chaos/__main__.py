"""``python -m tests.chaos``: break a queue for a while, and say whether it kept its word."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.chaos import queue_run
from tests.chaos.report import as_json, as_table
from tests.chaos.server import Fsync, ServerKind, binary_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long blows fall; 1 unless told")
    parser.add_argument("--seed", type=int, default=7, help="of what falls when; 7 unless told")
    parser.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    parser.add_argument("--server", type=ServerKind, choices=list(ServerKind), default=ServerKind.VALKEY)
    parser.add_argument("--fsync", type=Fsync, choices=list(Fsync), default=Fsync.ALWAYS)
    parser.add_argument("--cut-power", action="store_true", help="take the server's last second away as well")
    parser.add_argument("--log", action="store_true", help="show the end of the workers' log")
    options = parser.parse_args()
    binary = binary_of(options.server)
    if binary is None:
        parser.error(f"there is no {options.server} on this machine")
    if options.cut_power and options.fsync is Fsync.ALWAYS:
        parser.error("what `--fsync always` has answered is on disk: there is no last second to cut")
    setting = queue_run.Setting(
        seed=options.seed,
        seconds=options.minutes * 60,
        kind=options.server,
        binary=binary,
        fsync=options.fsync,
        cut_power=options.cut_power,
    )
    result = asyncio.run(queue_run.run(setting))
    print(as_json(setting, result) if options.json else as_table(setting, result))  # noqa: T201 - its product
    if options.log:
        print(result.log, file=sys.stderr)  # noqa: T201
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
