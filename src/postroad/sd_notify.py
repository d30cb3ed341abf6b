"""Reports the state of this process to systemd, as sd_notify(3) and sd_watchdog_enabled(3) describe it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
PINGS_PER_TIMEOUT = 2


class SystemdNotifier:
    """Sends notifications of this process. Without a socket in the environment, it sends none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the socket and the watchdog's timeout.

        Args:
            environment: Variables that systemd has set: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
        """
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environment) if self._address is not None else None
        """Time after which systemd kills a process that sends no ping. None: there is no watchdog."""

    def send(self, state: str) -> None:
        """Send a notification. A failure is logged, because the service continues without it.

        Args:
            state: The notification, such as `READY`.
        """
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd did not receive %s: %s", state, error)

    @asynccontextmanager
    async def watching(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Ping the watchdog from the event loop while this is open, and report a stop when it is requested.

        A blocked event loop sends no ping, so that systemd restarts the process.

        Args:
            stop: Is set when the process is asked to stop.
        """
        tasks = [asyncio.create_task(self._report_stop(stop))]
        if self.watchdog_s is not None:
            tasks.append(asyncio.create_task(self._ping(self.watchdog_s / PINGS_PER_TIMEOUT)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _report_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.send(STOPPING)

    async def _ping(self, interval_s: float) -> None:
        while True:
            self.send(WATCHDOG)
            await asyncio.sleep(interval_s)


def _address(name: str) -> str | None:
    """Return the address of the socket: a path, or an abstract name, which begins with @."""
    if name.startswith("@"):
        return "\0" + name[1:]
    if name.startswith("/"):
        return name
    if name:
        log.warning("NOTIFY_SOCKET is not a path or an abstract name: systemd gets no notifications")
    return None


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the timeout, if this process is the one that systemd watches."""
    timeout_us = environment.get("WATCHDOG_USEC", "")
    if not timeout_us.isdecimal() or int(timeout_us) == 0:
        return None
    return int(timeout_us) / 1e6 if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()) else None
