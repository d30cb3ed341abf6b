"""A forecast ends within a tenth of the time of a rehearsal of the same campaign."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroad.app.context import open_context
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.forecast.report import CampaignForecast
from postroad.settings import Settings
from postroad.store.engine import open_engine, sqlite_url
from postroad.store.migrate import upgrade
from tests.kit.clock import FakeClock
from tests.rehearsal.conftest import CAMPAIGN, Scene, scene  # noqa: F401  (the fixture)

pytestmark = pytest.mark.timeout(240)

ONE_STEP = CAMPAIGN.partition("  - wait")[0]
WARMING = """
[senders.ada.warmup]
preset = "table"
table = [5, 10, 20]
opens = "09:00"
closes = "21:00"
"""
THROTTLED = """
shaped = true
[delivery]
shaping = "shaping.toml"
"""


async def forecast(folder: Path, start: datetime) -> CampaignForecast:
    """Forecast the campaign of a folder, launched at a time."""
    settings = Settings.load(folder / "postroad.toml")
    (folder / "forecast").mkdir()
    engine = open_engine(sqlite_url(folder / "forecast"))
    upgrade(engine)
    clock = FakeClock(int(start.timestamp() * 1000))
    async with open_context(settings, clock, engine=engine) as context:
        file = read_campaign(folder / "campaign.yaml", settings)
        apply(engine, settings, file, clock.now())
        import_file(engine, "readers", folder / "readers.csv", clock.now())
        return await forecast_campaign(context, ForecastRequest(campaign="trial"))


async def compare(scene: Scene, start: datetime, *options: str) -> tuple[CampaignForecast, float]:  # noqa: F811
    """Return the forecast, and the length of the rehearsal as a share of that of the forecast."""
    found = await forecast(scene.folder, start)
    report = scene.report("--speed", "10000x", "--start", f"{start:%Y-%m-%dT%H:%MZ}", *options)
    assert (report["finished"], report["complete"]) == (True, True)
    assert found.ends_at is not None
    return found, report["seconds"] / (found.ends_at - found.made_at).total_seconds()


async def test_a_warming_sender(scene: Scene) -> None:  # noqa: F811
    scene.write([f"reader{n}@mailbox.example" for n in range(25)], campaign=ONE_STEP)
    with (scene.folder / "postroad.toml").open("a") as settings:
        settings.write(WARMING)
    found, ratio = await compare(scene, datetime(2027, 3, 1, 9, tzinfo=UTC), "--persona", "gmail")
    assert ratio == pytest.approx(1, abs=0.1)
    assert found.holds[0].cause.startswith("warmup:other:")


async def test_a_throttled_provider(scene: Scene) -> None:  # noqa: F811
    people = [f"reader{n}@gmail.com" for n in range(90)] + [f"reader{n}@mailbox.example" for n in range(30)]
    scene.write(people, campaign=ONE_STEP)
    (scene.folder / "shaping.toml").write_text('[provider.google]\nrate = "60/1h"\n')
    with (scene.folder / "postroad.toml").open("a") as settings:
        settings.write(THROTTLED)
    found, ratio = await compare(scene, datetime(2027, 3, 1, 9, tzinfo=UTC), "--persona", "gmail")
    assert ratio == pytest.approx(1, abs=0.1)
    assert found.holds[0].cause == "provider:google:ada@sender.example"


async def test_a_window_over_a_weekend(scene: Scene) -> None:  # noqa: F811
    window = "window: {from: '09:00', to: '17:00', days: [mon, tue, wed, thu, fri]}\nsteps:"
    campaign = CAMPAIGN.replace("steps:", window)
    scene.write([f"reader{n}@mailbox.example" for n in range(40)], rate="60/1h", campaign=campaign)
    found, ratio = await compare(scene, datetime(2027, 3, 5, 16, 30, tzinfo=UTC), "--persona", "gmail")
    assert ratio == pytest.approx(1, abs=0.1)
    assert found.holds[0].cause == "window"
