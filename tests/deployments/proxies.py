"""nginx and Caddy with the configurations of deployments, in front of real processes of ours."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.deployments.compose import ROOT
from tests.kit.waiting import block_until
from tests.queue.nodes import free_port
from tests.required import missing
from tests.smtp.conftest import Certificates

NGINX = ROOT / "deployments/nginx/postroad.conf"
CADDYFILE = ROOT / "deployments/caddy/Caddyfile"
PROGRAMS = ("nginx", "caddy")
MAIL, CONSOLE = "mail.example.com", "console.example.com"
PROXY = "127.0.0.1"
"""Address from which a proxy connects. Clients have other addresses of loopback."""

_NGINX_MAIN = """
{user}daemon off;
pid {folder}/nginx.pid;
error_log {folder}/main-error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/postroad.conf;
}}
"""


def program(name: str) -> str:
    """Return the path of a proxy. Skips the test without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return found or missing(name, f"apt-get install {name}")


class Upstreams:
    """Ports of `postroad web` and `postroad console`."""

    def __init__(self, web: int, console: int) -> None:
        self.web = web
        self.console = console


class TlsProxy:
    """A running proxy in a folder with all its logs."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.http_port, self.https_port = free_port(), free_port()
        self._trust = ssl.create_default_context(cafile=str(certificates.ca_file))

    def request(
        self,
        method: str,
        url: str,
        *,
        client: str = "127.0.0.2",
        data: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request of a client with this address. ``url``: as the client knows it."""
        target = httpx.URL(url)
        port = self.https_port if target.scheme == "https" else self.http_port
        transport = httpx.HTTPTransport(verify=self._trust, local_address=client)
        with httpx.Client(transport=transport, timeout=20) as http:
            return http.request(
                method,
                target.copy_with(host=PROXY, port=port),
                data=data,
                content=content,
                headers={"Host": target.host, **(headers or {})},
                extensions={"sni_hostname": target.host},
            )

    def logs(self) -> str:
        """Return all that the proxy has logged."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix == ".log"]
        return "\n".join(path.read_text(errors="replace") for path in files)

    def accepts(self) -> bool:
        """Return whether it listens at both ports."""
        for port in (self.http_port, self.https_port):
            with socket.socket() as probe:
                if probe.connect_ex((PROXY, port)) != 0:
                    return False
        return True


@contextmanager
def running_proxy(name: str, folder: Path, certificates: Certificates, to: Upstreams) -> Iterator[TlsProxy]:
    """Run a proxy with its configuration. Its ports, certificates and logs are those of the test."""
    path = program(name)
    proxy = TlsProxy(folder, certificates)
    command = (_nginx if name == "nginx" else _caddy)(path, proxy, certificates, to)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data")}
    with running(command, folder / "stderr.log", environment | {"XDG_CONFIG_HOME": str(folder / "config")}) as process:

        def accepts() -> bool:
            assert process.poll() is None, proxy.logs()
            return proxy.accepts()

        block_until(accepts)
        yield proxy


def _nginx(path: str, proxy: TlsProxy, certificates: Certificates, to: Upstreams) -> list[str]:
    text = NGINX.read_text(encoding="utf-8")
    replaced = {
        "listen 80;": f"listen {PROXY}:{proxy.http_port};",
        "listen 443 ssl;": f"listen {PROXY}:{proxy.https_port} ssl;",
        "listen [::]:80;": "",
        "listen [::]:443 ssl;": "",
        "/var/log/nginx": str(proxy.folder),
        "127.0.0.1:8087": f"127.0.0.1:{to.web}",
        "127.0.0.1:8088": f"127.0.0.1:{to.console}",
    }
    for host in (MAIL, CONSOLE):
        replaced[f"/etc/letsencrypt/live/{host}/fullchain.pem"] = str(certificates.certificate)
        replaced[f"/etc/letsencrypt/live/{host}/privkey.pem"] = str(certificates.private_key)
    (proxy.folder / "postroad.conf").write_text(_replace(text, replaced))
    user = "user root;\n" if os.geteuid() == 0 else ""
    main = proxy.folder / "nginx.conf"
    main.write_text(_NGINX_MAIN.format(user=user, folder=proxy.folder))
    return [path, "-c", str(main), "-e", str(proxy.folder / "start-error.log")]


def _caddy(path: str, proxy: TlsProxy, certificates: Certificates, to: Upstreams) -> list[str]:
    text = CADDYFILE.read_text(encoding="utf-8")
    own = f"tls {certificates.certificate} {certificates.private_key}"
    replaced = {
        "\n{\n": f"\n{{\nadmin off\nhttp_port {proxy.http_port}\nhttps_port {proxy.https_port}\n",
        f"\n{MAIL} {{\n": f"\n{MAIL} {{\nbind {PROXY}\n{own}\n",
        f"\n{CONSOLE} {{\n": f"\n{CONSOLE} {{\nbind {PROXY}\n{own}\n",
        "127.0.0.1:8087": f"127.0.0.1:{to.web}",
        "127.0.0.1:8088": f"127.0.0.1:{to.console}",
    }
    file = proxy.folder / "Caddyfile"
    file.write_text(_replace(text, replaced))
    return [path, "run", "--config", str(file), "--adapter", "caddyfile"]


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    for found, by in replaced.items():
        assert found in text, found
        text = text.replace(found, by)
    return text


@contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends, with its output in a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=log.parent, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def running_upstreams(folder: Path, config: Path) -> Iterator[Upstreams]:
    """Run `postroad web` and `postroad console` with these settings, at free ports. Their logs are in the folder."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "POSTROAD_CONFIG": str(config)}
    with ExitStack() as stack:
        for role in ("web", "console"):
            command = [sys.executable, "-m", "postroad", role, "--port", "0"]
            stack.enter_context(running(command, folder / f"{role}.log", environment))
        ports = [
            block_until(lambda log=folder / f"{role}.log": _port(log.read_text()), 60)  # type: ignore[misc]
            for role in ("web", "console")
        ]
        yield Upstreams(*ports)


def _port(log: str) -> int | None:
    found = re.search(r"listens at http://127\.0\.0\.1:(\d+)", log)
    return int(found[1]) if found else None
