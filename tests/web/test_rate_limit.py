"""Whose request it is, and how many of them there may be."""

from __future__ import annotations

import pytest

from postroad.settings import RateSetting
from postroad.web.rate_limit import MAX_CLIENTS, RateLimiter, client_address, networks
from tests.kit.clock import FakeClock

TRUSTED = networks(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # the proxy is not trusted
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.7, 10.1.2.3", "198.51.100.7"),  # the first may be invented
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7, nonsense", "127.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", "2a00:1450:4001:82a::5", "2a00:1450:4001:82a::/64"),
        ("127.0.0.1", "1.1.1.1, " * 100 + "10.0.0.1, " * 30 + "10.0.0.2", "10.0.0.1"),
        ("a socket", "", "a socket"),
    ],
)
def test_client_is_the_last_one_that_no_trusted_proxy_is(peer: str, forwarded: str, client: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == client


def test_so_many_go_at_once_and_then_one_by_one() -> None:
    clock = FakeClock()
    limits = RateLimiter(RateSetting(count=3, per_ms=60_000), clock)
    assert [limits.wait_s("a") for _ in range(5)] == [0, 0, 0, 20, 20]
    clock.advance(20_000)
    assert [limits.wait_s("a") for _ in range(2)] == [0, 20]
    clock.advance(3_600_000)
    assert [limits.wait_s("a") for _ in range(4)] == [0, 0, 0, 20]


def test_a_charge_is_bounded() -> None:
    clock = FakeClock()
    limits = RateLimiter(RateSetting(count=3, per_ms=60_000), clock)
    for _ in range(100):
        limits.charge("a", 19)
    assert limits.wait_s("a") == 80
    clock.advance(80_000)
    assert limits.wait_s("a") == 0


def test_memory_is_bounded_and_who_was_not_seen_for_longest_is_forgotten() -> None:
    limits = RateLimiter(RateSetting(count=1, per_ms=60_000), FakeClock())
    assert limits.wait_s("first") == 0
    assert limits.wait_s("first") > 0
    for number in range(MAX_CLIENTS):
        limits.wait_s(f"client {number}")
    assert len(limits) == MAX_CLIENTS
    assert limits.wait_s("first") == 0
    assert limits.wait_s(f"client {MAX_CLIENTS - 1}") > 0
