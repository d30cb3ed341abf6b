"""Simulates how mail leaves through gates, in steps of five minutes. Pure.

Messages are a fluid: a step sends as many as its gates admit, also parts of one. Lanes share a gate evenly, as the
queue serves them in turn.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from math import inf
from typing import NamedTuple
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window
from postroad.forecast.following import NextEmail, region_of
from postroad.forecast.gates import SimulatedGate

STEP_S = 300.0
"""Length of a step, in seconds: as often as running campaigns are advanced."""
HORIZON_S = 400 * 86_400.0
_LEAST = 1e-6
WINDOW = "window"
"""Cause of a hold: the campaign's hours."""


class LaneKey(NamedTuple):
    """Mail with the same gates and hours. ``campaign``: whether it is the campaign of the forecast, or another one."""

    sender: str
    receiver: str
    provider: str
    zone: str
    campaign: bool = True


class Arrival(NamedTuple):
    """Messages of one step that are due at the same time, in seconds since the epoch. ``step``: the id of the step."""

    due: float
    lane: LaneKey
    step: int
    messages: float


class HoldCause(NamedTuple):
    """Why messages wait: a gate with its limit, or the campaign's hours."""

    cause: str
    limit: str


class SimulatedRun(NamedTuple):
    """What a simulation found. Times are in seconds since the epoch; ``ended`` None: not within `HORIZON_S`.

    ``hours``: messages by start of the hour, sender and provider. ``steps``: of each email step the first and the last
    time, and the messages. ``held``: message seconds by cause. ``overflow``: messages that another sender took over.
    """

    ended: float | None
    hours: Mapping[tuple[float, str, str], float]
    steps: Mapping[int, tuple[float, float, float]]
    held: Mapping[HoldCause, float]
    waiting: float
    overflow: Mapping[str, float]


Follow = Callable[[int, float, float, str], Sequence[NextEmail]]
"""From a step, the time at which it was sent, the time at which it was due, and a zone: the emails that follow."""
TakeOver = Callable[[Arrival, Mapping[LaneKey, float]], Sequence[Arrival]]
"""From messages that became due, and what waits by lane: the same messages, by the sender that takes them."""


class Simulation:
    """One run of the simulation. It can be run once."""

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        gates_of: Callable[[LaneKey], Sequence[SimulatedGate]],
        *,
        follow: Follow,
        window: Window | None,
        own: str,
        take_over: TakeOver,
    ) -> None:
        """Set up the run.

        Args:
            arrivals: What is to be sent.
            gates_of: The gates of a lane, those of the fewest lanes first.
            follow: The emails that follow an email.
            window: The campaign's hours, in the zone of a lane.
            own: The campaign's sender, which sends each next step again.
            take_over: Overflow.
        """
        self._order = count()
        self._arrivals = [(one.due, next(self._order), one) for one in arrivals]
        heapq.heapify(self._arrivals)
        self._gates_of, self._gates = gates_of, dict[LaneKey, Sequence[SimulatedGate]]()
        self._follow, self._window = follow, window
        self._own, self._take_over = own, take_over
        self._lanes: dict[LaneKey, deque[Arrival]] = {}
        self._waiting: dict[LaneKey, float] = {}
        self._opens: dict[str, tuple[float, float]] = {}
        self._hours: defaultdict[tuple[float, str, str], float] = defaultdict(float)
        self._by_step: dict[int, tuple[float, float, float]] = {}
        self._held: defaultdict[HoldCause, float] = defaultdict(float)
        self._overflow: defaultdict[str, float] = defaultdict(float)
        self._ended: float | None = None

    def run(self, now: float) -> SimulatedRun:
        """Run until everything of the campaign is sent, or nothing can move any more."""
        horizon = now + HORIZON_S
        while now < horizon and self._is_busy():
            if not self._waiting:
                now = max(now, self._arrivals[0][0])
            self._let_in(now)
            sent = self._send(now)
            following = now + STEP_S if sent else max(self._next_event(now), now + STEP_S)
            # What waits for ever has a cause, but no time that could be added up.
            self._charge(now, following if following < inf else now)
            now = following
        waiting = sum(left for lane, left in self._waiting.items() if lane.campaign)
        done = not waiting and not any(one.lane.campaign for _, _, one in self._arrivals)
        return SimulatedRun(
            self._ended if done else None, self._hours, self._by_step, self._held, waiting, self._overflow
        )

    def _is_busy(self) -> bool:
        """Whether anything of the campaign is still to be sent."""
        return any(lane.campaign for lane in self._waiting) or any(one.lane.campaign for _, _, one in self._arrivals)

    def _let_in(self, now: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= now:
            _, _, due = heapq.heappop(self._arrivals)
            for one in self._take_over(due, self._waiting):
                if one.lane.sender != due.lane.sender:
                    self._overflow[one.lane.sender] += one.messages
                self._lanes.setdefault(one.lane, deque()).append(one)
                self._waiting[one.lane] = self._waiting.get(one.lane, 0.0) + one.messages

    def _send(self, now: float) -> dict[LaneKey, float]:
        """Send what the gates admit in this step. Returns the messages by lane."""
        share = {lane: left for lane, left in self._waiting.items() if self._window_opens(lane, now) <= now}
        by_gate: dict[str, tuple[SimulatedGate, list[LaneKey]]] = {}
        for lane in share:
            for gate in self._gates_of_lane(lane):
                by_gate.setdefault(gate.name, (gate, []))[1].append(lane)
        used = 0.0
        capacities: dict[str, float] = {}
        for name, (gate, lanes) in sorted(by_gate.items(), key=lambda item: len(item[1][1])):
            capacities[name] = capacity = gate.capacity(now, STEP_S)
            if sum(share[lane] for lane in lanes) > capacity:
                _share_evenly(share, lanes, capacity)
        for name, (gate, lanes) in by_gate.items():
            taken = sum(share[lane] for lane in lanes)
            gate.take(now, taken)
            if 0.0 < capacities[name] < inf:
                used = max(used, taken / capacities[name])
        sent = {lane: messages for lane, messages in share.items() if messages > _LEAST}
        for lane, messages in sent.items():
            self._record(lane, messages, now, now + STEP_S * min(used, 1.0))
        return sent

    def _record(self, lane: LaneKey, messages: float, now: float, until: float) -> None:
        """Take messages from a lane, and plan the steps that follow them."""
        hour = now - now % 3600
        self._hours[hour, lane.sender, lane.provider] += messages if lane.campaign else 0.0
        line = self._lanes[lane]
        while messages > _LEAST and line:
            first = line[0]
            part = min(messages, first.messages)
            messages -= part
            if first.messages - part > _LEAST:
                line[0] = first._replace(messages=first.messages - part)
            else:
                line.popleft()
            if lane.campaign:
                self._sent(first, part, now, until)
        self._waiting[lane] = sum(one.messages for one in line)
        if not line:
            del self._lanes[lane], self._waiting[lane]

    def _sent(self, one: Arrival, messages: float, now: float, until: float) -> None:
        since, _, before = self._by_step.get(one.step, (now, until, 0.0))
        self._by_step[one.step] = (since, until, before + messages)
        self._ended = max(self._ended or until, until)
        lane = one.lane._replace(sender=self._own)
        for email in self._follow(one.step, (now + until) / 2, one.due, one.lane.zone):
            following = Arrival(max(email.due, now + STEP_S), lane, email.step_id, messages * email.share)
            if following.messages > _LEAST:
                heapq.heappush(self._arrivals, (following.due, next(self._order), following))

    def _charge(self, now: float, following: float) -> None:
        """Charge the time of what still waits to the gate or the window that holds it."""
        for lane, left in self._waiting.items():
            if not lane.campaign or left <= _LEAST:
                continue
            if self._window_opens(lane, now) > now:
                hold = HoldCause(WINDOW, "outside the campaign's hours")
            else:
                gate = min(self._gates_of_lane(lane), key=lambda gate: gate.capacity(now, STEP_S))
                hold = HoldCause(gate.name, gate.limit(now))
            self._held[hold] += left * (following - now)

    def _next_event(self, now: float) -> float:
        """Return when anything can change: something is due, or every gate of a lane is open."""
        events = [self._arrivals[0][0]] if self._arrivals else []
        for lane in self._waiting:
            gates = self._gates_of_lane(lane)
            events.append(max([self._window_opens(lane, now), *(gate.opens(now) for gate in gates)]))
        return min(events, default=inf)

    def _gates_of_lane(self, lane: LaneKey) -> Sequence[SimulatedGate]:
        if lane not in self._gates:
            self._gates[lane] = self._gates_of(lane)
        return self._gates[lane]

    def _window_opens(self, lane: LaneKey, now: float) -> float:
        if self._window is None or not lane.campaign:
            return now
        zone = lane.zone
        checked, opens = self._opens.get(zone, (-inf, -inf))
        if now >= opens and (checked != now):
            region = region_of(self._window, zone, zone)
            opens = self._window.opens(datetime.fromtimestamp(now, UTC), ZoneInfo(zone), region).timestamp()
            self._opens[zone] = (now, opens)
        return max(opens, now) if opens > now else now


def _share_evenly(share: dict[LaneKey, float], lanes: Sequence[LaneKey], capacity: float) -> None:
    """Lower what lanes get until it fits: each gets the same, and what one does not need goes to the others."""
    left = capacity
    ordered = sorted(lanes, key=lambda lane: share[lane])
    for place, lane in enumerate(ordered):
        share[lane] = min(share[lane], left / (len(ordered) - place))
        left -= share[lane]
