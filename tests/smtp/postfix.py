"""Postfix as a peer: its test sink, and a complete instance in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.smtp.conftest import Certificates

SBIN = "/usr/sbin:/usr/lib/postfix/sbin:/usr/libexec/postfix"


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not here, and CI must not skip it: install postfix")
        pytest.skip(f"{name} is not here: install postfix")
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"QUIT\r\n")
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _wait_for(port: int, log: Path | None = None) -> None:
    deadline_s = time.monotonic() + 30
    while not _answers(port):
        if time.monotonic() > deadline_s:
            pytest.fail(f"postfix does not answer: {log.read_text() if log is not None and log.exists() else ''}")
        time.sleep(0.02)


@contextmanager
def smtp_sink(*options: str) -> Iterator[int]:
    """Run smtp-sink(1) on a free port. It accepts mail and discards it, unless the options say otherwise."""
    port = _free_port()
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [_program("smtp-sink"), *user, *options, f"127.0.0.1:{port}", "100"], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


_MASTER = """
{port}    inet n - n - - smtpd
{implicit} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
{in_turn} inet n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=pipelining,chunking
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
smtp      unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
proxymap  unix - - n - - proxymap
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

# Only authenticated clients may relay, and TLS is required.
_SASL = """
{port}    inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sasl_type=dovecot
  -o smtpd_sasl_path={socket}
  -o smtpd_sasl_mechanism_filter={mechanism}
  -o smtpd_tls_auth_only=yes
  -o smtpd_error_sleep_time=0
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
"""

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = postfix.test
mydestination =
local_recipient_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{next_hop}
smtp_tls_security_level = none
smtpd_tls_security_level = may
smtpd_tls_chain_files = {private_key}, {certificate}
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ nobody@example.org = 550 5.1.1 no such user }},
  {{ later@example.org = 450 4.2.0 greylisted }}, {{ leave@example.org = 421 4.7.0 enough }} }}, permit
message_size_limit = 100000
"""


class Postfix:
    """The ports of an instance."""

    def __init__(self, port: int, implicit_tls_port: int, in_turn_port: int, login_ports: Mapping[str, int]) -> None:
        self.port = port
        self.implicit_tls_port = implicit_tls_port
        self.in_turn_port = in_turn_port
        """Port that does not offer PIPELINING."""
        self.login_ports = login_ports
        """Ports by the only mechanism that each offers, in lower case."""


@contextmanager
def postfix(
    folder: Path, next_hop: int, certificates: Certificates, *, sasl: Path | None = None, mechanisms: Sequence[str] = ()
) -> Iterator[Postfix]:
    """Run a complete Postfix that relays all mail to the port of the next hop. Needs root, as Postfix does.

    ``sasl``: the socket of a Dovecot that judges who logs in, by one of these mechanisms.
    """
    program = _program("postfix")
    if os.geteuid() != 0:
        pytest.skip("postfix can be started by root only")
    login_ports = {mechanism: _free_port() for mechanism in mechanisms}
    instance = Postfix(_free_port(), _free_port(), _free_port(), login_ports)
    config = folder / "etc"
    for made in (config, folder / "spool", folder / "data"):
        made.mkdir(parents=True)
    shutil.chown(folder / "data", "postfix")
    (config / "main.cf").write_text(
        _MAIN.format(
            folder=folder,
            next_hop=next_hop,
            private_key=certificates.private_key,
            certificate=certificates.certificate,
        )
    )
    (config / "master.cf").write_text(
        _MASTER.format(port=instance.port, implicit=instance.implicit_tls_port, in_turn=instance.in_turn_port).lstrip()
        + "".join(_SASL.format(port=port, socket=sasl, mechanism=mechanism) for mechanism, port in login_ports.items())
    )
    environment = {"PATH": SBIN + ":/usr/bin:/bin", "MAIL_CONFIG": str(config)}
    started = subprocess.run(
        [program, "-c", str(config), "start"], check=False, env=environment, capture_output=True, text=True
    )
    try:
        assert started.returncode == 0, started.stderr + (
            (folder / "log").read_text() if (folder / "log").exists() else ""
        )
        _wait_for(instance.port, folder / "log")
        yield instance
    finally:
        subprocess.run([program, "-c", str(config), "stop"], check=False, env=environment, capture_output=True)
