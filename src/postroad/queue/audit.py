"""Checks the invariants of a queue in short steps, while jobs move.

An invariant of one job, lane or gate is checked in one script, so the result is always exact. Sums over lanes and gates
are checked in one script if the queue is small, and omitted otherwise. Other invariants, as that a job is in a lane,
need all steps: the result is exact if no job moved. Otherwise a violation counts only if two audits in a row find it,
of a job that did not leave its lane meanwhile.

A list is read from its tail. Jobs are claimed from its head and added at its tail, so no queued job is missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from postroad.queue.scripts import Scripts

STEP = 40
"""Lanes, gates or jobs that one call processes. It takes the server some milliseconds."""

SUMS = 3_000
"""Maximum number of lanes, gates and leases of which one script takes sums: some 15 ms."""

_SCANNED = ("leases", "held", "scheduled", "uncertain", "dead")
_CLASSES = ("urgent", "normal", "bulk")


@dataclass
class _Findings:
    """Violations by code and subject, and whether no job moved meanwhile."""

    wrong: dict[str, str] = field(default_factory=dict)
    quiet: bool = False


async def audit(scripts: Scripts) -> list[str]:
    """Check all invariants. Needs some 150 bytes of memory for each job.

    Args:
        scripts: Scripts of the queue.

    Returns:
        One sentence for each invariant that does not hold.

    Raises:
        UnavailableError: The server does not reply.
    """
    first = await _Audit(scripts).run()
    if first.quiet or not first.wrong:
        return list(first.wrong.values())
    second = await _Audit(scripts).run()
    return [words for code, words in second.wrong.items() if second.quiet or code in first.wrong]


class _Audit:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._found = _Findings()
        self._in_lane: dict[str, int] = {}  # jobs that must be in a lane, and how often they left it
        self._jobs_of: Counter[int] = Counter()
        self._cancelled = 0  # cancelled ids that lanes still list
        self._read_again: set[str] = set()  # ids that two steps found in one list, as if jobs had been added between

    async def run(self) -> _Findings:
        before = await self._stamp()
        await self._read_jobs()
        lanes = await self._read_lanes()
        for part in _SCANNED:
            await self._all(part)
        await self._read_gates()
        await self._all("sums", limit=SUMS)
        missing = await self._still_missing()
        after = await self._stamp()
        self._found.quiet = after == before
        for id_, closed in missing.items():
            self._wrong(f"nowhere {id_} {closed}", f"job {id_} is nowhere")
        if self._found.quiet:
            for id_ in self._read_again:
                self._twice(id_)
            self._compare_lanes(lanes)
            marked = after[-1]
            if self._cancelled != marked:
                self._wrong("cancelled", f"{self._cancelled} cancelled ids stand in lanes, {marked} are marked")
        return self._found

    def _wrong(self, code: str, words: str) -> None:
        self._found.wrong.setdefault(code, words)

    def _twice(self, id_: str) -> None:
        self._wrong(f"twice {id_}", f"job {id_} is both queued and queued")

    async def _stamp(self) -> list[Any]:
        return await self._all("stamp")

    async def _steps(self, part: str, subject: str | bytes = "", limit: int = STEP) -> AsyncIterator[Any]:
        cursor = "0"
        while True:
            packed = await self._scripts.audit(part, subject, cursor, limit)
            cursor, wrong, seen = msgspec.msgpack.decode(packed)
            for code, words in wrong:
                self._wrong(code, words)
            yield seen
            if cursor == "0":
                return

    async def _all(self, part: str, subject: str = "", limit: int = STEP) -> list[Any]:
        return [one async for seen in self._steps(part, subject, limit) for one in seen]

    async def _read_jobs(self) -> None:
        known: set[str] = set()  # A scan may return a job twice.
        async for seen in self._steps("jobs"):
            for id_, lane, closed, in_lane in seen:
                if id_ not in known:
                    known.add(id_)
                    self._jobs_of[lane] += 1
                    if in_lane:
                        self._in_lane[id_] = closed

    async def _read_lanes(self) -> dict[int, tuple[int, int]]:
        """Read every lane and its list. Returns by lane: the live jobs that it counts, and whether it is idle."""
        found = {n: (length, live, idle) for n, length, live, idle in await self._all("lanes")}
        seen: dict[str, int] = {}
        for n, (length, *_) in found.items():
            if length:
                await self._read_list(n, seen)
        return {n: (live, idle) for n, (_, live, idle) in found.items()}

    async def _read_list(self, lane: int, seen: dict[str, int]) -> None:
        """Read the list of a lane from its tail.

        Jobs that are added at the tail move ids that were read into the next step. It then begins with them, in the
        order in which they were read. An id that is found again in any other way is in the list twice.

        Args:
            lane: Number of the lane.
            seen: By id, how often it had left its lane: what was found in all lanes so far.
        """
        places: dict[str, int] = {}  # by id: its place in the order of reading
        async for ids, cancelled in self._steps("list", str(lane)):
            self._cancelled += cancelled
            known, moved_to = len(places), -1
            for id_, closed in reversed(ids):
                place = places.get(id_, known)
                if moved_to < place < known and seen[id_] == closed:
                    moved_to = place
                    self._read_again.add(id_)
                    continue
                moved_to = known
                if seen.get(id_) == closed:
                    self._twice(id_)
                seen[id_] = closed
                places[id_] = len(places)
                self._in_lane.pop(id_, None)

    async def _read_gates(self) -> None:
        places = ["ready", *(f"parked:{name}" for name in dict.fromkeys(await self._all("gates")))]
        for place in places:
            for job_class in _CLASSES:
                await self._all("lane_states", f"{place}:{job_class}")

    async def _still_missing(self) -> dict[str, int]:
        """Return jobs that no lane listed, that are in no other place by now, and that did not leave a lane since."""
        missing: dict[str, int] = {}
        ids = list(self._in_lane)
        for start in range(0, len(ids), STEP):
            async for seen in self._steps("again", msgspec.msgpack.encode(ids[start : start + STEP])):
                missing |= {id_: closed for id_, closed in seen if self._in_lane[id_] == closed}
        return missing

    def _compare_lanes(self, lanes: dict[int, tuple[int, int]]) -> None:
        """Compare what lanes count with what was found. Only where nothing moved."""
        for n, (live, idle) in lanes.items():
            found = self._jobs_of[n]
            if live != found:
                self._wrong(f"live {n}", f"lane {n} counts {live} live jobs, there are {found}")
            if bool(idle) == bool(found):
                self._wrong(f"idle {n}", f"lane {n} has {found} live jobs and is idle wrongly")
