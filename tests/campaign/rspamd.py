"""A real rspamd on loopback, without DNS: it knows messages by its rules only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.required import missing

# Without PCRE's just-in-time compiler it starts in a second of processor time, and not in twenty.
_CONFIG = """
.include "/etc/rspamd/common.conf"
options {{ disable_hyperscan = true; disable_pcre_jit = true; pidfile = "{folder}/rspamd.pid";
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
  control_socket = "{folder}/control.sock mode=0600"; }}
logging {{ type = "file"; filename = "{folder}/rspamd.log"; level = "warning"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
"""


@contextmanager
def rspamd() -> Iterator[str]:
    """Start rspamd, and yield its URL."""
    program = shutil.which("rspamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("rspamd", "apt-get install rspamd")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="pr-rspamd-") as name:
        config = Path(name) / "rspamd.conf"
        config.write_text(_CONFIG.format(folder=name, port=port))
        command = [program, "--no-fork", "--config", str(config), "--var", f"DBDIR={name}", "--var", f"RUNDIR={name}"]
        process = subprocess.Popen([*command, *(["--insecure"] if os.geteuid() == 0 else [])], stderr=subprocess.PIPE)
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 40
    while True:
        assert process.poll() is None, process.communicate()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until_s, "rspamd does not listen"
            time.sleep(0.1)
