"""Time zones are the names of the IANA database, the same on every host and in every file."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from postroad.campaign.audience import import_file, refusals
from postroad.campaign.definition import read_campaign
from postroad.errors import ConfigError
from postroad.settings import Settings, ZoneName
from postroad.settings.types import time_zones
from tests.campaign.project import CAMPAIGN, NOW, TEXT

NOT_ZONES = [
    *("localtime", "Localtime", "LOCALTIME", "posixrules", "Factory", "factory"),
    *("posix/Europe/Berlin", "right/Europe/Berlin", "posix", "right", "right/UTC"),
    *("europe/berlin", "EUROPE/BERLIN", "utc", "Utc", "gmt", "Europe/berlin"),
    *("/usr/share/zoneinfo/Europe/Berlin", "/etc/localtime", "Europe/../Europe/Berlin", "./UTC", "UTC/", "Europe/"),
    *(
        "Europe",
        "zone.tab",
        "tzdata.zi",
        "leapseconds",
        "+01:00",
        "UTC+1",
        "CEST",
        "Berlin",
        ":UTC",
        "UTC\0",
        "x" * 300,
    ),
]
WRONG = r"time_?zone: .* is not a time zone"
ZONES = ["UTC", "Etc/UTC", "Etc/GMT+5", "EST5EDT", "US/Eastern", "Asia/Calcutta", "America/Argentina/Ushuaia", "GMT"]


@pytest.mark.parametrize("name", [*NOT_ZONES, "", " ", " UTC"])
def test_a_name_outside_the_iana_database_is_an_error(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a time zone of the IANA database"):
        TypeAdapter(ZoneName).validate_python(name)


@pytest.mark.parametrize("name", ZONES)
def test_links_and_old_names_of_the_database_are_valid(name: str) -> None:
    assert TypeAdapter(ZoneName).validate_python(name) == name


def test_every_name_is_a_zone_on_this_host() -> None:
    assert {ZoneInfo(name).key for name in time_zones()} == time_zones()
    assert available_timezones() - time_zones() <= {"localtime", "Factory"}
    assert len(time_zones()) > 590


@pytest.mark.parametrize("name", ["localtime", "posix/UTC"])
def test_invalid_zones_are_errors_in_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    toml, campaign = tmp_path / "postroad.toml", tmp_path / "campaign.yaml"
    (tmp_path / "hello.txt").write_text(TEXT)
    campaign.write_text(f"{CAMPAIGN}time_zone: {name}\n")
    with pytest.raises(ConfigError, match=WRONG):
        read_campaign(campaign)
    sender = '[senders.a]\naddress = "a@example.com"\nname = "A"\npostal_address = "1 High Street, Town"\nroute = "r"\n'
    for text, field in ((f'time_zone = "{name}"\n', "time_zone"), (f'{sender}warmup.zone = "{name}"\n', "warmup.zone")):
        toml.write_text(text)
        with pytest.raises(ConfigError, match=f"{field}: .* is not a time zone"):
            Settings.load()
    toml.write_text("")
    monkeypatch.setenv("POSTROAD_TIME_ZONE", name)
    with pytest.raises(ConfigError, match=WRONG):
        Settings.load()


def test_a_row_with_an_invalid_zone_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    names = [name for name in NOT_ZONES if "\0" not in name]
    rows = "".join(f"r{number}@example.com,{name}\n" for number, name in enumerate([*ZONES, "", " UTC ", *names]))
    path.write_text(f"email,time_zone\n{rows}")
    progress = import_file(engine, "people", path, NOW)
    assert (progress.imported, progress.refused) == (len(ZONES) + 2, len(names))
    found = refusals(engine, progress.import_id)
    assert [(row.field, row.value) for row in found] == [("time_zone", name) for name in names]
    assert {row.reason for row in found} == {"it is not a time zone of the IANA database"}
