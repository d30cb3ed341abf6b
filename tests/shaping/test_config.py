"""shaping.toml: the shipped file, the operator's file over it, and errors of an invalid file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.gates.name import Receiver
from postroad.settings import RateSetting
from postroad.shaping.config import read_shaping
from postroad.shaping.limits import LimitScope, ShapingTls

GOOGLE = LimitScope(sender="news@example.com", receiver=Receiver("google"))


def at_google(site: str, domain: str | None = None) -> LimitScope:
    return LimitScope(sender=GOOGLE.sender, receiver=Receiver("google", site, domain))


def write(folder: Path, text: str) -> Path:
    path = folder / "shaping.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("provider", "connections", "in_all", "messages"),
    [
        ("other", 10, None, 100),
        ("google", 10, 5, 50),
        ("outlook", 5, None, 50),
        ("office365", 5, None, 50),
        ("yahoo", 10, None, 20),
        ("apple", 10, 10, 5),
        ("comcast", 25, None, 1000),
        ("gmx", 4, None, 20),
        ("web.de", 4, None, 20),
        ("orange", 2, None, 100),
    ],
)
def test_the_shipped_limits(provider: str, connections: int, in_all: int | None, messages: int) -> None:
    limits = read_shaping(None).limits(LimitScope(sender="a@example.com", receiver=Receiver(provider)))
    assert limits.rate == RateSetting(count=100, per_ms=1000)
    assert (limits.connections, limits.connections_in_all, limits.messages_per_connection) == (
        connections,
        in_all,
        messages,
    )
    assert limits.tls is (ShapingTls.REQUIRED if provider == "google" else ShapingTls.OPPORTUNISTIC)


def test_the_most_specific_limit_wins(tmp_path: Path) -> None:
    shaping = read_shaping(
        write(
            tmp_path,
            """
            [default.sender."news@example.com"]
            rate = "50/1s"
            [provider.google]
            connections = 7
            [provider.google.sender."news@example.com"]
            connections = 3
            [site."mx.example.net"]
            connections = 2
            rate = "9/1s"
            [domain."example.org"]
            connections = 1
            """,
        )
    )
    limits, why = shaping.limits_with_sources(GOOGLE)
    assert (limits.connections, why["connections"]) == (3, "provider.google.sender.news@example.com")
    assert (limits.rate, why["rate"]) == (RateSetting(count=50, per_ms=1000), "default.sender.news@example.com")
    # What is not named stays as shipped.
    assert (limits.messages_per_connection, limits.tls) == (50, ShapingTls.REQUIRED)
    assert shaping.limits(LimitScope(sender="x@example.com", receiver=Receiver("google"))).connections == 7
    at_site = shaping.limits(at_google("mx.example.net"))
    assert (at_site.connections, at_site.rate) == (2, RateSetting(count=9, per_ms=1000))
    at_domain = shaping.limits(at_google("mx.example.net", "example.org"))
    assert (at_domain.connections, at_domain.rate) == (1, RateSetting(count=9, per_ms=1000))


def test_a_site_or_domain_with_a_rate_has_a_gate(tmp_path: Path) -> None:
    shaping = read_shaping(
        write(
            tmp_path,
            """
            [provider.google]
            messages_per_connection = 5
            [site."mx.example.net"]
            connections = 2
            [domain."example.org"]
            rate = "9/1s"
            [domain."secret.org"]
            tls = "required"
            [domain."example.com".sender."news@example.com"]
            rate = "1/1s"
            """,
        )
    )
    assert str(shaping.receiver_of("other", "mx.example.net", "other.org")) == "other/site.mx.example.net"
    both = shaping.receiver_of("other", "mx.example.net", "example.org")
    assert str(both) == "other/site.mx.example.net/domain.example.org"
    assert str(shaping.receiver_of("google", "google", "example.com")) == "google/domain.example.com"
    assert str(shaping.receiver_of("other", "elsewhere.net", "secret.org")) == "other"
    shaped = {GOOGLE.sender}

    limits = shaping.limits_of_gate(f"provider:{both}:news@example.com", shaped)
    assert limits is not None
    assert (limits.connections, limits.rate) == (2, RateSetting(count=9, per_ms=1000))
    google = shaping.limits_of_gate("provider:google/domain.example.com:news@example.com", shaped)
    assert google is not None
    assert (google.rate, google.messages_per_connection) == (RateSetting(count=1, per_ms=1000), 5)
    # The many hosts of unknown domains share one gate, which has no limit.
    assert shaping.limits_of_gate("provider:other:news@example.com", shaped) is None
    # A job submitted before its table was removed from the file gets the limits of the remaining tables.
    gone = shaping.limits_of_gate("provider:google/domain.gone.net:news@example.com", shaped)
    assert gone == shaping.limits(GOOGLE)


def test_rules_of_the_operator_come_first_and_override_single_fields(tmp_path: Path) -> None:
    shaping = read_shaping(
        write(
            tmp_path,
            """
            [rule.mine]
            text = "go away"
            suspend = true
            for = "1h"
            [rule.busy]
            for = "10m"
            [rule.yahoo-deferral]
            off = true
            """,
        )
    )
    assert next(iter(shaping.rule)) == "mine"
    assert shaping.rule["busy"].for_ms == 600_000
    assert shaping.rule["busy"].connections == 1
    assert shaping.rule["yahoo-deferral"].off
    assert list(shaping.rule)[1:] == list(read_shaping(None).rule)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[provider.google]\nconnections = 0", 2, "provider.google.connections"),
        ("[provider.google]\n\nconections = 3", 3, "conections is not a setting of [provider.google]"),
        ("[default]\nrate = 'fast'", 2, "is not a rate"),
        ("[site.x]\nconnections_in_all = 3", 1, "set it in [provider.NAME]"),
        ("[default]\nconnections_in_all = 3", 1, "set it in [provider.NAME]"),
        ("[provider.x.sender.'a@x.net']\nconnections_in_all = 3", 1, "set it in [provider.NAME]"),
        ("[domain.'Example.ORG']\nconnections = 3", 1, "in lower case"),
        (f"[rule.{'r' * 101}]\ntext = 'x'\nsuspend = true\nfor = '1h'", 1, "of 1 to 100"),
        (f"[provider.{'p' * 101}]\nconnections = 3", 1, "of 1 to 100"),
        ("[site.'a:b']\nconnections = 3", 1, "is not a site"),
        ("[rule.mine]\ntext = '('\nsuspend = true\nfor = '1h'", 2, "is not a regular expression"),
        ("[rule.mine]\nsuspend = true\nfor = '1h'", 1, "needs text, enhanced or codes"),
        ("[rule.mine]\ntext = 'x'\nfor = '1h'", 1, "either suspend = true, or rate"),
        ("[rule.mine]\ntext = 'x'\nsuspend = true\nrate = '1/1m'\nfor = '1h'", 1, "either suspend = true, or rate"),
        ("[rule.mine]\ntext = 'x'\nsuspend = true", 1, "rule.mine.for"),
        ("[rule.pace]\ntext = 'x'\nsuspend = true\nfor = '1h'", 1, "is a reserved name"),
    ],
)
def test_an_error_names_file_line_and_field(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_shaping(path)
    assert caught.value.where == f"{path}, line {line}"


def test_a_missing_or_invalid_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_shaping(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        read_shaping(write(tmp_path, "[["))
