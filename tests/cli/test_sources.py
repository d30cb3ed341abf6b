"""Several sources, one of which fails: the others continue, and every command reports the failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from postroad.cli.bounce import watch_all
from postroad.cli.options import MetricsAt
from postroad.embedded import stop_redis
from postroad.settings import CONFIG_VARIABLE, Settings
from tests.bounce import mails
from tests.commands import run_command

SETTINGS = """
[bounce.sources.box]
kind = "maildir"
path = "box"

[bounce.sources.away]
kind = "maildir"
path = "nowhere"
"""
WITHIN_S = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    for name in ("new", "cur", "tmp"):
        (tmp_path / "box" / name).mkdir(parents=True)
    (tmp_path / "box" / "new" / "1.mx").write_bytes(mails.UNKNOWN)
    yield tmp_path
    stop_redis(tmp_path / ".postroad")


def _environment(site: Path) -> dict[str, str]:
    return {
        CONFIG_VARIABLE: str(site / "postroad.toml"),
        "COLUMNS": "200",
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
    }


def test_poll_fetches_from_the_others_and_ends_with_the_error(site: Path) -> None:
    done = run_command(site, _environment(site), "bounce", "poll", "--json")
    assert [(one["source"], one["taken"]) for one in json.loads(done.stdout)] == [("box", 1)]
    assert done.returncode == 3
    error = json.loads(done.stderr)["error"]
    assert error["code"] == 3
    assert error["where"].endswith("nowhere")
    assert error["message"].startswith("there is no Maildir")


def test_doctor_opens_every_source_and_takes_nothing(site: Path) -> None:
    done = run_command(site, _environment(site), "doctor", "--json")
    checks = {check["part"]: check for check in json.loads(done.stdout)}
    assert (checks["source box"]["health"], checks["source away"]["health"]) == ("ok", "fail")
    assert checks["source box"]["seen"].endswith("box: 1 mail waits")
    assert "there is no Maildir" in checks["source away"]["seen"]
    assert checks["source away"]["remedy"] == "Correct the path."
    assert done.returncode == 1
    assert len(list((site / "box" / "new").iterdir())) == 1


async def test_watch_goes_on_with_the_others_and_its_metrics_say_which_fails(
    site: Path, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings, stop = Settings.load(site / "postroad.toml"), asyncio.Event()
    at = MetricsAt("127.0.0.1", unused_tcp_port)
    watching = asyncio.create_task(watch_all(settings, settings.bounce.sources, at, stop))
    try:
        async with asyncio.timeout(WITHIN_S), httpx.AsyncClient() as http:
            shown = ""
            while 'what="taken"} 1.0' not in shown or "source away: " not in caplog.text:
                assert not watching.done()
                await asyncio.sleep(0.05)
                try:
                    shown = (await http.get(f"http://127.0.0.1:{unused_tcp_port}/metrics")).text
                except httpx.TransportError:
                    continue
    finally:
        stop.set()
        await asyncio.wait_for(watching, WITHIN_S)
    assert 'postroad_bounce_source_up{source="box"} 1.0' in shown
    assert 'postroad_bounce_source_up{source="away"} 0.0' in shown
    assert 'postroad_bounce_source_mails_total{source="away",what="taken"} 0.0' in shown
