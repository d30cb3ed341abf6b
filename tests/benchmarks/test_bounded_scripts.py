"""No script of the queue does more on a larger queue, and the registry of calls misses none."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from benchmarks.bounded_scripts import CALLS, STEP_COMMANDS, measure, scripts
from postroad.queue.redis.client import connect

FOLDER = Path(str(files("postroad.queue").joinpath("lua")))
SMALL, LARGE = 6_000, 40_000


def test_every_script_is_called() -> None:
    assert CALLS.keys() == scripts()


async def test_no_call_of_a_script_grows_with_the_queue(redis_url: str) -> None:
    client = connect(redis_url)
    try:
        small, large = [await measure(redis_url, client, size) for size in (SMALL, LARGE)]
    finally:
        await client.flushall()
        await client.aclose()
    growing = {
        name: (small[name].commands, cost.commands)
        for name, cost in large.items()
        if cost.commands > max(1.3 * small[name].commands + 50, STEP_COMMANDS)
    }
    assert growing == {}


WHOLE = re.compile(
    r"call\('(HGETALL|HKEYS|HVALS|SMEMBERS|LREM|LPOS|SORT)'|call\('(LRANGE|ZRANGE|ZREVRANGE)'[^)]*0, -1\)"
)
"""Commands that read a whole list, set or hash: one each, and as long as it has items."""

READ_WHOLE = {
    ("audit", "HGETALL"): "counters and depths: one for each kind and class",
    ("audit", "HKEYS"): "lanes, not more than the limit",
    ("audit", "HVALS"): "leases, not more than the limit",
    ("audit", "SMEMBERS"): "gates, not more than the limit",
    ("enqueue", "LREM"): "ids that were cancelled and come again before a claim has met their old entries",
    ("find", "LPOS"): "250,000 ids, which take some 10 ms: for a person",
    ("find", "LRANGE"): "the history, of which as much is kept as the settings say: for a person",
    ("lib/lanes", "HGETALL"): "virtual clocks: one for each class",
    ("stats", "HGETALL"): "counters and depths: one for each kind and class",
    ("stats", "HKEYS"): "groups that are paused",
}


def test_commands_that_read_whole_collections_are_listed() -> None:
    found = {
        (str(path.relative_to(FOLDER).with_suffix("")), match.group(1) or match.group(2))
        for path in FOLDER.rglob("*.lua")
        for match in WHOLE.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == READ_WHOLE.keys()
