"""URLs of Redis servers are parsed completely. Errors do not show the URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.queue.redis.url import RedisUrl, Tls, Topology, parse_redis_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", RedisUrl(topology=Topology.SERVER, hosts=(("localhost", 6379),))),
        ("redis://h:7/3", RedisUrl(topology=Topology.SERVER, hosts=(("h", 7),), db=3)),
        ("redis://h?db=2", RedisUrl(topology=Topology.SERVER, hosts=(("h", 6379),), db=2)),
        ("redis://[::1]:7", RedisUrl(topology=Topology.SERVER, hosts=(("::1", 7),))),
        (
            "redis://ada:p%40ss%2F@h",
            RedisUrl(topology=Topology.SERVER, hosts=(("h", 6379),), username="ada", password="p@ss/"),
        ),
        ("redis://:secret@h", RedisUrl(topology=Topology.SERVER, hosts=(("h", 6379),), password="secret")),
        ("unix:///run/a%20b.sock?db=1", RedisUrl(topology=Topology.SERVER, path="/run/a b.sock", db=1)),
        ("rediss://h", RedisUrl(topology=Topology.SERVER, hosts=(("h", 6379),), tls=Tls())),
        (
            "redis+sentinel://u:p@a,b:7/mail/2?sentinel_username=s&sentinel_password=w%26",
            RedisUrl(
                topology=Topology.SENTINEL,
                hosts=(("a", 26379), ("b", 7)),
                db=2,
                username="u",
                password="p",
                service="mail",
                sentinel_username="s",
                sentinel_password="w&",
            ),
        ),
        (
            "rediss+cluster://u:p@a:1,b:2?ssl_check_hostname=false",
            RedisUrl(
                topology=Topology.CLUSTER,
                hosts=(("a", 1), ("b", 2)),
                username="u",
                password="p",
                tls=Tls(check_hostname=False),
            ),
        ),
    ],
)
def test_a_redis_url_is_parsed(url: str, address: RedisUrl) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "not the address"),
        ("http://s3cret@h", "not the address"),
        ("redis+s3cret://h", "not the address"),
        ("redis://:s3cret@h:port", "not the address"),
        ("redis://:s3cret@h/zero", "not the address"),
        ("redis://[:s3cret@h", "not the address"),
        ("unix://", "names no socket"),
        ("redis+sentinel://:s3cret@h:26379", "does not name the primary"),
        ("redis+cluster://:s3cret@h/1", "no databases but 0"),
        ("redis+cluster://:s3cret@h,,b", "a host is missing"),
        ("redis://:s3cret@h?socket_timeout=1", "socket_timeout"),
        ("redis://:s3cret@h?ssl_ca_certs=/x", "ssl_ca_certs"),
        ("redis://:s3cret@h?sentinel_password=s3cret", "sentinel_password"),
        ("rediss://:s3cret@h?ssl_ca_certs=/nowhere/ca.pem", "names no file: /nowhere/ca.pem"),
        ("rediss://:s3cret@h?ssl_check_hostname=maybe", "neither true nor false"),
        (f"rediss://:s3cret@h?ssl_certfile={__file__}", "without its key"),
    ],
)
def test_an_invalid_url_is_rejected_and_not_shown(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_redis_url(url)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    assert "s3cret" not in shown


def test_a_url_is_shown_without_its_secrets(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    address = parse_redis_url(f"rediss+sentinel://u:s3cret@a,b/mail?sentinel_password=s3cret&ssl_ca_certs={authority}")
    assert str(address) == repr(address) == "rediss+sentinel://a:26379,b:26379/mail"
