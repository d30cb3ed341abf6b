"""nginx and Caddy with our configurations, in front of a real `postroad web` and `postroad console`."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.api.access import BODY_WITHIN_S
from postroad.app.recorded_act import ACT_WITHIN_S
from postroad.campaign.files import MAX_FILES_BYTES
from postroad.mail.token import Purpose, TokenSigner
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from postroad.web.body import BODY_WITHIN_S as UNSUBSCRIBE_WITHIN_S
from postroad.web.body import MAX_BODY_BYTES
from postroad.web.connections import ConnectionLimits
from postroad.web.serve import MAX_HEAD_BYTES
from postroad.web.webhooks.routes import MAX_BODY_BYTES as MAX_WEBHOOK_BYTES
from tests.delivery.queue_of_touches import state_of
from tests.deployments.proxies import (
    CADDYFILE,
    CONSOLE,
    MAIL,
    NGINX,
    PROGRAMS,
    PROXY,
    TlsProxy,
    Upstreams,
    running_proxy,
    running_upstreams,
)
from tests.kit.waiting import block_until
from tests.queue.nodes import free_port
from tests.smtp.conftest import Certificates
from tests.store.rows import add_campaign, add_touch

pytestmark = pytest.mark.timeout(180)

KEY = "a key of the tests"
RATE = 5
SETTINGS = f"""
state_dir = "state"
secret_key = "{KEY}"
public_url = "https://{MAIL}"
[web]
rate = "{RATE}/10m"
trusted_proxies = ["{PROXY}"]
[web.webhooks.postmark]
secret = "sixteen characters"
[console]
url = "https://{CONSOLE}"
trusted_proxies = ["{PROXY}"]
"""
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
FORGED = {"X-Forwarded-For": "198.51.100.7"}
HSTS = "strict-transport-security"

_clients = (f"127.0.{n // 250 + 1}.{n % 250 + 1}" for n in count())


@pytest.fixture
def client() -> str:
    """Address of a client that has sent no request."""
    return next(_clients)


@pytest.fixture(scope="module")
def folder(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and a migrated database."""
    folder = tmp_path_factory.mktemp("upstreams")
    (folder / "state").mkdir(mode=0o700)
    shutil.copyfile(sqlite_template, folder / "state/postroad.db")
    (folder / "postroad.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def upstreams(folder: Path) -> Iterator[Upstreams]:
    with running_upstreams(folder, folder / "postroad.toml") as started:
        yield started


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Certificates:
    return Certificates(folder, (MAIL, CONSOLE))


@pytest.fixture(scope="module", params=PROGRAMS)
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    upstreams: Upstreams,
) -> Iterator[TlsProxy]:
    folder = tmp_path_factory.mktemp(request.param)
    with running_proxy(request.param, folder, certificates, upstreams) as started:
        yield started


@pytest.fixture
def engine(folder: Path) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{folder}/state/postroad.db")
    yield engine
    engine.dispose()


@pytest.fixture
def touch(engine: sa.Engine) -> int:
    """A message that waits."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        return add_touch(connection, campaign, step, TouchState.PLANNED)


def token_of(touch: int) -> str:
    return TokenSigner(SecretStr(KEY)).sign(Purpose.UNSUBSCRIBE, touch)


def test_one_click_unsubscribes_through_tls(proxy: TlsProxy, engine: sa.Engine, touch: int, client: str) -> None:
    answer = proxy.request("POST", f"https://{MAIL}/u/{token_of(touch)}", client=client, data=ONE_CLICK)
    assert answer.status_code == 200
    assert state_of(engine, touch) == TouchState.SUPPRESSED
    with read(engine) as connection:
        notes = connection.execute(sa.text("SELECT reply FROM delivery_event WHERE touch_id = :id"), {"id": touch})
        assert notes.scalars().all() == ["one-click (RFC 8058)"]


def test_http_is_redirected_with_its_method(proxy: TlsProxy, client: str) -> None:
    for host, path in ((MAIL, "/u/x?y=z"), (CONSOLE, "/sign-in")):
        answer = proxy.request("POST", f"http://{host}{path}", client=client, data=ONE_CLICK)
        # A 301 lets a client repeat a POST as GET.
        assert answer.status_code == 308
        without_port = answer.headers["location"].replace(f":{proxy.https_port}", "")
        assert without_port == f"https://{host}{path}"


def test_a_client_is_limited_by_its_address_and_not_by_what_it_claims(proxy: TlsProxy, client: str) -> None:
    url = f"https://{MAIL}/healthz"
    statuses = [
        proxy.request("GET", url, client=client, headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code
        for n in range(RATE + 1)
    ]
    assert statuses == [200] * RATE + [429]
    # Another client has its own limit, also if it claims to be the first one.
    other = next(_clients)
    claims = {"X-Forwarded-For": client}
    assert proxy.request("GET", url, client=other, headers=claims).status_code == 200


def test_the_console_sees_the_address_of_the_client(proxy: TlsProxy, folder: Path, client: str) -> None:
    origin = f"https://{CONSOLE}"
    headers = {"Origin": origin, **FORGED}
    answer = proxy.request("POST", f"{origin}/sign-in/link", client=client, data={"token": "x"}, headers=headers)
    assert answer.status_code == 404
    log = block_until(lambda: _line(folder / "console.log", client))
    assert "sign-in with a link failed, from" in log
    assert FORGED["X-Forwarded-For"] not in (folder / "console.log").read_text()


def _line(log: Path, text: str) -> str:
    return next((line for line in log.read_text().splitlines() if line.endswith(text)), "")


def test_only_paths_for_recipients_and_mail_services_lead_to_web(proxy: TlsProxy, client: str) -> None:
    assert proxy.request("GET", f"https://{MAIL}/healthz", client=client).json()["service"] == "postroad"
    for path in ("/", "/metrics", "/readyz", "/sign-in", "/api/v1/campaigns", "/healthz/x"):
        answer = proxy.request("GET", f"https://{MAIL}{path}", client=client)
        assert (answer.status_code, answer.headers.get("x-robots-tag")) == (404, None), path


def test_the_console_has_its_host_name(proxy: TlsProxy, client: str) -> None:
    page = proxy.request("GET", f"https://{CONSOLE}/sign-in", client=client)
    assert page.status_code == 200
    assert "Sign in" in page.text


def test_browsers_remember_that_both_hosts_have_tls(proxy: TlsProxy, client: str) -> None:
    for url in (f"https://{MAIL}/healthz", f"https://{MAIL}/other", f"https://{CONSOLE}/sign-in"):
        answer = proxy.request("GET", url, client=client)
        assert answer.headers.get_list(HSTS) == ["max-age=31536000"], url


@pytest.mark.parametrize(
    ("path", "most_bytes"), [("/u/TOKEN", MAX_BODY_BYTES), ("/webhooks/postmark", MAX_WEBHOOK_BYTES)]
)
def test_a_body_has_the_limit_of_web(proxy: TlsProxy, touch: int, client: str, path: str, most_bytes: int) -> None:
    url = f"https://{MAIL}{path.replace('TOKEN', token_of(touch))}"
    authorized = {"X-Postroad-Secret": "sixteen characters"}
    for length, status in ((most_bytes, 400), (most_bytes + 1, 413), (20 * most_bytes, 413)):
        answer = proxy.request("POST", url, client=client, content=b"x" * length, headers=authorized)
        assert answer.status_code == status


def test_no_log_has_a_token(
    proxy: TlsProxy, request: pytest.FixtureRequest, folder: Path, certificates: Certificates, client: str, touch: int
) -> None:
    name, token = request.node.callspec.params["proxy"], token_of(touch)
    away = proxy.folder / "away"
    away.mkdir()
    with running_proxy(name, away, certificates, Upstreams(free_port(), free_port())) as failing:
        for through, status in ((proxy, 200), (failing, 502)):
            ask_with_token(through, client, token, status)
            _ = block_until(lambda log=through: client in log.logs())  # type: ignore[misc]
            assert token not in through.logs()
            assert "secret-of-a-link" not in through.logs()
    for log in ("web.log", "console.log"):
        assert token not in (folder / log).read_text()


def ask_with_token(proxy: TlsProxy, client: str, token: str, status: int) -> None:
    """Use a token in each way in which a path or a header can have it."""
    answer = proxy.request("GET", f"https://{MAIL}/u/{token}", client=client)
    assert answer.status_code == status
    for path in (f"//u/{token}", f"/%75/{token}", f"/u/x/../{token}", f"/other/{token}", f"/u/{token}?{token}"):
        proxy.request("GET", f"https://{MAIL}{path}", client=client, headers={"Referer": f"https://{MAIL}/u/{token}"})
        proxy.request("GET", f"http://{MAIL}{path}", client=client)
    proxy.request("POST", f"https://{MAIL}/u/{token}", client=client, content=b"x" * (MAX_BODY_BYTES + 1))
    link = f"https://{CONSOLE}/sign-in/link?token=secret-of-a-link"
    assert proxy.request("GET", link, client=client).status_code in (404, status)
    proxy.request("GET", f"https://{CONSOLE}/static/x", client=client, headers={"Referer": link})
    with socket.create_connection((PROXY, proxy.http_port), source_address=(client, 0)) as raw:
        raw.sendall(f"GET http://{MAIL}/u/{token} HTTP/1.1\r\nHost: {MAIL}\r\nConnection: close\r\n\r\n".encode())
        while raw.recv(4096):
            pass


def test_limits_of_time_are_those_of_postroad() -> None:
    limits, nginx, caddy = ConnectionLimits(), NGINX.read_text(), CADDYFILE.read_text()
    console_s = f"{ACT_WITHIN_S + 30:.0f}s"
    mail_server, console_server = nginx.split("server {")[2:]
    assert f"client_header_timeout {limits.head_s:.0f}s;" in mail_server
    assert f"client_body_timeout {UNSUBSCRIBE_WITHIN_S:.0f}s;" in mail_server
    assert f"proxy_read_timeout {limits.answer_s:.0f}s;" in mail_server
    assert f"client_body_timeout {BODY_WITHIN_S:.0f}s;" in console_server
    assert f"proxy_read_timeout {console_s};" in console_server
    assert f"limit_conn postroad_clients {limits.per_client};" in mail_server
    assert nginx.count(f"large_client_header_buffers 2 {MAX_HEAD_BYTES // 2048}k;") == 2
    assert f"client_max_body_size {2 * MAX_FILES_BYTES};" in console_server
    assert f"read_header {limits.head_s:.0f}s\n" in caddy
    assert f"read_body {BODY_WITHIN_S + 5:.0f}s\n" in caddy
    assert f"write {console_s}\n" in caddy
    assert caddy.count(f"response_header_timeout {limits.answer_s:.0f}s\n") == 3
    assert f"response_header_timeout {console_s}\n" in caddy
    assert f"max_header_size {MAX_HEAD_BYTES // 1024}KiB\n" in caddy
    assert f"max_size {2 * MAX_FILES_BYTES // 1_000_000}MB\n" in caddy
