"""``python -m tests.chaos``: inject faults into the queue, or into all parts, and check the guarantees."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.chaos import delivery_run, queue_run, report
from tests.chaos.server import Fsync, ServerKind, binary_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="duration of the faults; default 1")
    parser.add_argument("--seed", type=int, default=7, help="seed of the faults; default 7")
    parser.add_argument("--delivery", action="store_true", help="a campaign from ledger to provider")
    parser.add_argument("--server", type=ServerKind, choices=list(ServerKind), default=ServerKind.VALKEY)
    parser.add_argument("--fsync", type=Fsync, choices=list(Fsync), default=Fsync.ALWAYS)
    parser.add_argument(
        "--cut-power", action="store_true", help="discard the last second of the server's writes instead"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    parser.add_argument("--logs", action="store_true", help="show the end of the processes' logs as well")
    options = parser.parse_args()
    binary = binary_of(options.server)
    if binary is None:
        parser.error(f"there is no {options.server} on this machine")
    if options.cut_power and options.fsync is Fsync.ALWAYS:
        parser.error("what `--fsync always` has answered is on disk: there is no last second to take away")
    seconds = options.minutes * 60
    result: queue_run.Result | delivery_run.Result
    if options.delivery:
        campaign = delivery_run.Setting(seed=options.seed, seconds=seconds, kind=options.server, binary=binary)
        result = asyncio.run(delivery_run.run(campaign))
        text = report.delivery_line(campaign, result) if options.json else report.delivery_page(campaign, result)
    else:
        setting = queue_run.Setting(
            seed=options.seed,
            seconds=seconds,
            kind=options.server,
            binary=binary,
            fsync=options.fsync,
            cut_power=options.cut_power,
        )
        result = asyncio.run(queue_run.run(setting))
        text = report.queue_line(setting, result) if options.json else report.queue_page(setting, result)
    if options.logs:
        print(result.logs, file=sys.stderr)  # noqa: T201
    print(text)  # noqa: T201 - its product
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
