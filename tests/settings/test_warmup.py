"""Settings of warmup: errors name the line."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.settings import Preset
from tests.settings.conftest import Load

TWO = """
[routes.relay]
host = "smtp.example.com"
[senders.news]
address = "news@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
[senders.offers]
address = "offers@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
"""


def test_a_section_is_enough(load: Load) -> None:
    settings = load(TWO + "[senders.news.warmup]\n")
    warmup = settings.senders["news"].warmup
    assert warmup is not None
    assert (warmup.preset, warmup.opens, warmup.closes, warmup.start) == (Preset.CURVE, time(8), time(20), None)
    assert settings.senders["offers"].warmup is None


def test_times_and_dates_are_those_of_toml(load: Load) -> None:
    warmup = load(TWO + "[senders.news.warmup]\nstart = 2026-06-01\nopens = 09:30:00\ncloses = '00:00'\n").senders[
        "news"
    ]
    assert warmup.warmup is not None
    assert (warmup.warmup.start, warmup.warmup.opens, warmup.warmup.closes) == (date(2026, 6, 1), time(9, 30), time())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('preset = "table"', "table is required with preset 'table'"),
        ("table = [10, 20]", "table is required with preset 'table'"),
        ('preset = "table"\ntable = [20, 10]', "each cap must be larger"),
        ('preset = "table"\ntable = [0, 10]', "table must start at 1"),
        ('preset = "sendgrid"\nfirst = 20', "has a table with a first cap"),
        ("opens = 20:00:00\ncloses = 08:00:00", "closes must be later in the day"),
        ('opens = "08:00+02:00"', "without a zone"),
        ('zone = "Berlin"', "not a time zone"),
        ("first = 0", "greater than or equal to 1"),
        ('preset = "magic"', "senders.news.warmup.preset"),
    ],
)
def test_an_invalid_section_is_an_error(load: Load, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(TWO + "[senders.news.warmup]\n" + text)
    assert str(caught.value.where).startswith(str(tmp_path / "postroad.toml"))


def test_senders_of_one_domain_must_have_one_plan(load: Load, tmp_path: Path) -> None:
    load(TWO + "[senders.news.warmup]\nfirst = 20\n[senders.offers.warmup]\nfirst = 20\n")
    with pytest.raises(ConfigError, match="one warmup plan") as caught:
        load(TWO + "[senders.news.warmup]\nfirst = 20\n[senders.offers.warmup]\nfirst = 30\n")
    assert "senders.offers.warmup" in str(caught.value.where)
