"""A real name server on loopback: nsd(8), with all that there is of DNS in one zone."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

_SBIN = "/usr/sbin:/usr/local/sbin"
_START_S = 20.0

_CONFIGURATION = """
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    zonesdir: "{folder}"
    zonelistfile: "{folder}/zones"
    xfrdfile: "{folder}/xfrd"
    xfrdir: "{folder}"
    pidfile: ""
    database: ""
    logfile: "{folder}/log"
    # The default is at most 200 responses a second per client.
    rrl-ratelimit: 0
    # No additional records, like resolvers.
    minimal-responses: yes
    receive-buffer-size: 4194304
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "root"
"""

_HEAD = """$TTL 3600
. SOA ns.root.test. hostmaster.root.test. 1 3600 600 86400 300
. NS ns.root.test.
ns.root.test. A 127.0.0.1
"""


class NotInstalledError(Exception):
    """There is no nsd on this machine."""


class NameServer(NamedTuple):
    """A running nsd."""

    port: int
    version: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(records: str) -> AsyncIterator[NameServer]:
    """Serve only these records, which are a zone file with absolute names.

    What it does not know does not exist: it is the root, so that no other name has an SOA. Raises NotInstalledError;
    RuntimeError for records that nsd cannot read.
    """
    program = shutil.which("nsd", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if program is None:
        raise NotInstalledError("nsd is not installed: apt-get install nsd")
    with tempfile.TemporaryDirectory(prefix="postroad-nsd-") as folder:
        port = _free_port()
        (Path(folder) / "root").write_text(_HEAD + records, "utf-8")
        configuration = Path(folder) / "nsd.conf"
        configuration.write_text(_CONFIGURATION.format(port=port, folder=folder), "utf-8")
        process = await asyncio.create_subprocess_exec(
            program,
            "-d",
            "-c",
            str(configuration),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _wait_ready(port, process, Path(folder) / "log")
            yield NameServer(port, await _version(program))
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _version(program: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program, "-v", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return said.decode().partition("\n")[0].replace("version ", "")


def _free_port() -> int:
    """Return a port that is free for both, UDP and TCP."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            try:
                datagrams.bind(stream.getsockname())
            except OSError:
                continue
            return int(stream.getsockname()[1])


async def _wait_ready(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Ask for the SOA of the root by TCP until there is an answer; without a zone that is SERVFAIL."""
    question = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + struct.pack("!BHH", 0, 6, 1)
    async with asyncio.timeout(_START_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(struct.pack("!H", len(question)) + question)
                answer = await reader.readexactly(14)
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                answer = b""
            if answer and not answer[5] & 0xF:
                return
            if answer or process.returncode is not None:
                raise RuntimeError(f"nsd does not serve these records: {_last_words(log)}")
            await asyncio.sleep(0.02)


def _last_words(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-500:] if log.exists() else "it wrote no log"
