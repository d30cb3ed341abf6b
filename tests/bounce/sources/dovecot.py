"""Dovecot as the IMAP server, and as Postfix's judge of passwords: a whole instance of it in a folder of its own."""

from __future__ import annotations

import imaplib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.required import missing
from tests.smtp.conftest import Certificates

PASSWORD = "pässword \"with' \\ all"
USER = "bounces@news.example.com"

_CONFIG = """
protocols = imap
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{private_key}
mail_location = maildir:{folder}/mail
first_valid_uid = 1
service anvil {{
  chroot =
  # Else each login that is refused makes the next one wait longer.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service auth {{
  unix_listener {folder}/sasl {{
    mode = 0666
  }}
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail
}}
"""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Dovecot:
    """Its ports, and a way to put mail into it and to look at it that is not ours."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.certificates = certificates
        self.port = _free_port()
        self.tls_port = _free_port()
        self.sasl = folder / "sasl"
        """Where Postfix asks it."""

    @contextmanager
    def client(self) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4("127.0.0.1", self.port, timeout=20) as imap:
            imap.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
            yield imap

    def put(self, *raws: bytes, mailbox: str = "INBOX") -> None:
        with self.client() as imap:
            for raw in raws:
                assert imap.append(mailbox, "", "", raw)[0] == "OK"

    def make(self, mailbox: str) -> None:
        with self.client() as imap:
            assert imap.create(f'"{mailbox}"')[0] == "OK"

    def flags(self, mailbox: str = "INBOX") -> list[str]:
        """Of each message."""
        with self.client() as imap:
            count = int(imap.select(f'"{mailbox}"', readonly=True)[1][0] or b"0")
            if not count:
                return []
            lines = imap.fetch(f"1:{count}", "(FLAGS)")[1]
            return [line.decode().partition("FLAGS (")[2].rstrip(")") for line in lines if isinstance(line, bytes)]


@contextmanager
def dovecot(certificates: Certificates, mechanisms: str = "plain") -> Iterator[Dovecot]:
    program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("dovecot", "apt-get install dovecot-imapd")
    if os.geteuid() != 0:
        pytest.skip("dovecot is started by root here, for its processes have users of their own")
    with tempfile.TemporaryDirectory(prefix="pr-dovecot-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        instance = Dovecot(folder, certificates)
        (folder / "mail").mkdir()
        shutil.chown(folder / "mail", "nobody", "nogroup")
        (folder / "users").write_text(f"{USER}:{PASSWORD}\n")
        config = folder / "dovecot.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                port=instance.port,
                tls_port=instance.tls_port,
                certificate=certificates.certificate,
                private_key=certificates.private_key,
                mechanisms=mechanisms,
            )
        )
        process = subprocess.Popen([program, "-F", "-c", str(config)], stderr=subprocess.PIPE)
        try:
            _wait(instance, process)
            yield instance
        finally:
            process.terminate()
            process.communicate()


def _wait(instance: Dovecot, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as connection:
                if connection.recv(4) == b"* OK":
                    return
        except OSError:
            pass
        log = instance.folder / "log"
        if process.poll() is not None or time.monotonic() > until_s:
            process.kill()
            _, said = process.communicate()
            pytest.fail(f"dovecot does not answer: {said!r} {log.read_text() if log.exists() else ''}")
        time.sleep(0.05)
