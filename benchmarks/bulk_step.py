"""One step over many recipients in a separate process, so that its memory can be measured.

    import FOLDER REDIS_URL COUNT   import a CSV of this many rows with the settings of that folder
    submit FOLDER REDIS_URL COUNT   freeze its audience, and submit all of it to the queue

One line of JSON: seconds, CPU seconds of the process (user and system), and its peak of resident memory in bytes.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from pathlib import Path

from benchmarks import campaign_folder
from benchmarks.ours_delivery import apply_campaign, hand_over, settings_of
from postroad.app.context import AppContext, open_context
from postroad.campaign.audience import import_file


async def _step(what: str, folder: Path, redis_url: str, count: int) -> None:
    async with open_context(settings_of(folder, redis_url)) as context:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        done = await _submit(context, folder) if what == "submit" else _import(context, folder / "readers.csv")
        assert done == count, f"{done} of {count}"
        found = {
            "seconds": time.perf_counter() - start_s,
            "cpu_s": time.process_time() - start_cpu_s,
            "peak_bytes": _peak_bytes(),
        }
    print(json.dumps(found))


async def _submit(context: AppContext, folder: Path) -> int:
    apply_campaign(context, folder)
    return await hand_over(context)


def _import(context: AppContext, path: Path) -> int:
    return import_file(context.engine, campaign_folder.AUDIENCE, path, context.clock.now()).imported


def _peak_bytes() -> int:
    try:
        # Unlike ru_maxrss, it starts at 0 with the program.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    asyncio.run(_step(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
