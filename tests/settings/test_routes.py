"""Routes: one relay, several relays, or direct delivery; contradicting settings are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.settings import RouteKind, TlsMode
from tests.settings.conftest import Load

POOL = """
[routes.pool]
tls = "implicit"
port = 465
ca_file = "ca.pem"
username = "ada"
password = "pony"
relays = [
    { host = "one.example.net", port = 465, weight = 3 },
    { host = "two.example.net", username = "bob", tls = "starttls", client_certificate = "us.pem" },
]
"""


def test_one_host_is_a_pool_of_one(load: Load) -> None:
    route = load('[routes.relay]\nhost = "smtp.example.net"\nconnections = 3\n').routes["relay"]
    [relay] = route.relay_pool
    assert (relay.host, relay.port, relay.weight, relay.tls, relay.connections) == (
        "smtp.example.net",
        587,
        1,
        TlsMode.STARTTLS,
        3,
    )


def test_relays_override_settings_of_the_route(load: Load, tmp_path: Path) -> None:
    one, two = load(POOL).routes["pool"].relay_pool
    assert (one.host, one.port, one.weight, one.tls, one.username) == (
        "one.example.net",
        465,
        3,
        TlsMode.IMPLICIT,
        "ada",
    )
    assert (two.host, two.port, two.weight, two.tls, two.username) == (
        "two.example.net",
        587,
        1,
        TlsMode.STARTTLS,
        "bob",
    )
    assert one.ca_file == two.ca_file == tmp_path / "ca.pem"
    assert two.client_certificate == tmp_path / "us.pem"
    assert two.password is not None
    assert two.password.get_secret_value() == "pony"
    assert "pony" not in repr(load(POOL))


def test_the_password_of_all_relays_comes_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_ROUTES__POOL__PASSWORD", "hunter2")
    relays = load(POOL.replace('password = "pony"\n', "")).routes["pool"].relay_pool
    assert {relay.password.get_secret_value() for relay in relays if relay.password} == {"hunter2"}


def test_a_direct_route_has_different_defaults(load: Load) -> None:
    route = load('[routes.direct]\nkind = "direct"\n').routes["direct"]
    assert (route.kind, route.port, route.tls, route.relay_pool) == (
        RouteKind.DIRECT,
        25,
        TlsMode.OPPORTUNISTIC,
        (),
    )


def test_default_timeouts_are_those_of_rfc_5321(load: Load) -> None:
    timeouts = load('[routes.direct]\nkind = "direct"\ntimeouts = { dot_ms = "15m" }\n').routes["direct"].timeouts
    assert (timeouts.greeting_ms, timeouts.mail_ms, timeouts.rcpt_ms) == (300_000, 300_000, 300_000)
    assert (timeouts.data_ms, timeouts.dot_ms) == (120_000, 900_000)


RELAY = '[routes.r]\nhost = "a.example.net"\n'
OAUTH = 'oauth = { token_url = "https://a.example/token", client_id = "x", refresh_token = "secret-word" }\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[routes.r]\nport = 25\n", "routes.r: it needs host"),
        (RELAY + 'relays = [{ host = "b.example.net" }]\n', "either a host or a list"),
        ('[routes.r]\nkind = "direct"\nhost = "a.example.net"\n', "no host, relays or username"),
        ('[routes.r]\nkind = "direct"\ntls = "implicit"\n', "opportunistic, starttls or none"),
        (RELAY + 'tls = "none"\nusername = "a"\npassword = "secret-word"\n', "clear_text_login"),
        (RELAY + 'tls = "opportunistic"\nusername = "a"\npassword = "secret-word"\n', "clear_text_login"),
        (RELAY + OAUTH, "needs a username"),
        (RELAY + 'username = "a"\npassword = "secret-word"\n' + OAUTH, "either a password or oauth"),
        (RELAY + 'username = "a"\n' + OAUTH.replace("https", "http"), "routes.r.oauth.token_url"),
        (RELAY + 'client_key = "us.key"\n', "client_certificate"),
        (RELAY + 'helo = "two words"\n', "routes.r.helo"),
        (RELAY + 'timeouts = { mail_ms = "0s" }\n', "routes.r.timeouts.mail_ms"),
        ('[routes.r]\nrelays = [{ host = "a.example.net", weight = 0 }]\n', r"routes.r.relays.0.weight"),
        ('[routes.r]\nrelays = [{ host = "a.example" }, { host = "A.example" }]\n', "named twice"),
        ('[dns]\nnameservers = ["resolver.example.net"]\n', "not an IP address"),
    ],
)
def test_contradicting_settings_are_an_error_without_secrets(load: Load, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(text)
    assert "secret-word" not in str(caught.value)
    assert "line" in str(caught.value)


def test_a_clear_text_login_is_allowed_by_a_setting(load: Load) -> None:
    load(RELAY + 'tls = "none"\nusername = "a"\npassword = "b"\nclear_text_login = true\n')


@pytest.mark.parametrize("wrong", ['source_address = "mail.example.com"', 'helo = "a\\nb"'])
def test_a_source_address_must_be_an_ip_address(load: Load, wrong: str) -> None:
    sender = '[senders.a]\naddress = "a@example.com"\npostal_address = "1 High Street"\nroute = "r"\n'
    given = load(RELAY + sender + 'source_address = "192.0.2.1"\nhelo = "mail.example.com"\n').senders["a"]
    assert (given.source_address, given.helo) == ("192.0.2.1", "mail.example.com")
    with pytest.raises(ConfigError, match=r"senders\.a\.(source_address|helo)"):
        load(RELAY + sender + wrong + "\n")
