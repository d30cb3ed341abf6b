"""How much one client may bring."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from postroad.bounce.sources.recipient_policy import NO_SUCH_ADDRESS, RecipientPolicy
from postroad.bounce.sources.throttle import ConnectionCounts, Throttle, client_of
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import RateSetting
from tests.kit.clock import FakeClock


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::"),
        ("", None),
        (None, None),
    ],
)
def test_a_client_is_an_address_or_a_site(peer: object, client: str | None) -> None:
    assert client_of(peer) == client


def test_a_client_has_so_many_mails_in_a_span_and_others_have_theirs() -> None:
    clock = FakeClock()
    throttle = Throttle(RateSetting(count=3, per_ms=60_000), clock)
    assert [throttle.admits("a") for _ in range(4)] == [True, True, True, False]
    assert throttle.admits("b")
    clock.advance(19_999)
    assert not throttle.admits("a")
    clock.advance(1)  # A third of the span: one more.
    assert [throttle.admits("a") for _ in range(2)] == [True, False]
    clock.advance(60_000)
    assert [throttle.admits("a") for _ in range(4)] == [True, True, True, False]
    assert all(throttle.admits(None) for _ in range(10))


def test_clients_that_are_gone_are_forgotten() -> None:
    clock = FakeClock()
    throttle = Throttle(RateSetting(count=3, per_ms=1_000), clock)
    for number in range(20_000):
        clock.advance(1)
        assert throttle.admits(f"client {number}")
    assert len(throttle) < 3_000


def test_connections_are_counted_by_client_and_in_all() -> None:
    connections = ConnectionCounts(limit=3, limit_per_client=2)
    assert [connections.enter("a") for _ in range(3)] == [True, True, False]
    assert [connections.enter("b"), connections.enter("c")] == [True, False]
    connections.leave("a")
    assert connections.enter("c")


def test_domains_are_compared_in_a_labels() -> None:
    signer = TokenSigner(SecretStr("a key for tests"))
    recipient_policy = RecipientPolicy(signer, domains=["Rücklauf.example"], addresses=["Grüße@büro.example"])
    bounce = f"bounce+{signer.sign(Purpose.BOUNCE, 7)}"
    assert recipient_policy.refusal(f"{bounce}@xn--rcklauf-n2a.example", "") is None
    assert recipient_policy.refusal(f"{bounce}@RÜCKLAUF.example", "") is None
    assert recipient_policy.refusal("grüße@xn--bro-hoa.example", "ada@example.org") is None
    other = TokenSigner(SecretStr("the key of somebody else")).sign(Purpose.BOUNCE, 7)
    assert recipient_policy.refusal(f"bounce+{other}@rücklauf.example", "") == NO_SUCH_ADDRESS
