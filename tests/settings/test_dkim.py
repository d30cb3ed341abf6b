"""DKIM keys in the settings: errors name the setting and never quote a key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.mail.dkim import Algorithm, generate_key
from postroad.mail.dkim_keys import load_signers
from tests.settings.conftest import Load

SENDER = """
[routes.relay]
host = "smtp.example.com"

[senders.news]
address = "news@bücher.example"
postal_address = "1 High Street, Springfield"
route = "relay"
"""
ACTIVE = '[[senders.news.dkim]]\nselector = "2026a"\nkey_file = "keys/a.pem"\n'
NEXT = '[[senders.news.dkim]]\nselector = "2027a"\nkey_env = "NEXT_KEY"\nsince = 2027-01-01\n'


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/a.pem").write_bytes(generate_key(Algorithm.ED25519))
    return generate_key(Algorithm.ED25519).decode()


def test_keys_come_from_a_file_and_from_the_environment(load: Load, key: str) -> None:
    signer = load_signers(load(SENDER + ACTIVE + NEXT), {"NEXT_KEY": key})["news"]
    for now, selector in (
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "2026a"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2027a"),
    ):
        assert [each.record_name for each in signer.keys_at(now)] == [f"{selector}._domainkey.xn--bcher-kva.example"]


def test_a_sender_without_keys_has_no_signer(load: Load) -> None:
    assert load_signers(load(SENDER), {}) == {}


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T09:00:00", datetime(2027, 1, 1, 9, tzinfo=UTC)),
        ("2027-01-01T09:00:00+02:00", datetime(2027, 1, 1, 7, tzinfo=UTC)),
        ('"2027-01-01"', datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_date_is_midnight_and_the_default_zone_is_utc(load: Load, written: str, instant: datetime) -> None:
    settings = load(SENDER + ACTIVE + NEXT.replace("2027-01-01", written))
    assert settings.senders["news"].dkim[1].since == instant


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ACTIVE.replace('key_file = "keys/a.pem"\n', ""), "name either key_file or key_env"),
        (ACTIVE + 'key_env = "X"\n', "name either key_file or key_env"),
        (ACTIVE.replace("2026a", "a b; d=evil"), "senders.news.dkim.0.selector"),
        (NEXT, "one dkim key must have no since"),
        (ACTIVE + 'algorithm = "rsa"\n', "algorithm is not a setting of .senders.news.dkim.0."),
        (ACTIVE + 'since = "soon"\n', "since: Invalid isoformat"),
    ],
)
def test_an_invalid_section_is_an_error(load: Load, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(SENDER + text)
    assert str(caught.value.where).startswith(str(tmp_path / "postroad.toml"))


def test_a_missing_key_file_is_an_error_with_the_setting(load: Load, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="the variable NEXT_KEY is not set") as caught:
        load_signers(load(SENDER + ACTIVE + NEXT), {})
    assert caught.value.where == "senders.news.dkim.1.key_env"
    (tmp_path / "keys/a.pem").unlink()
    with pytest.raises(ConfigError, match=r"keys/a\.pem cannot be read: No such file") as caught:
        load_signers(load(SENDER + ACTIVE), {})
    assert caught.value.where == "senders.news.dkim.0.key_file"


def test_an_invalid_key_in_a_variable_is_not_quoted(load: Load, key: str) -> None:
    with pytest.raises(ConfigError, match="not a private key") as caught:
        load_signers(load(SENDER + ACTIVE + NEXT), {"NEXT_KEY": "hunter2"})
    assert "NEXT_KEY" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_two_keys_of_one_algorithm_from_one_time_are_an_error(load: Load, tmp_path: Path, key: str) -> None:
    (tmp_path / "b.pem").write_text(key)
    again = ACTIVE.replace("2026a", "2026b").replace("keys/a.pem", "b.pem")
    with pytest.raises(ConfigError, match="two keys of ed25519-sha256 become active at the same time"):
        load_signers(load(SENDER + ACTIVE + again), {})
