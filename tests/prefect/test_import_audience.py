"""The flow `import-audience` through a real Prefect server: a file that was imported before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from postroad.local.prefect_server import PrefectServer
from postroad.store.engine import open_engine, sqlite_url
from tests.campaign.tables import recipients

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_client_settings")]

CHECKOUT = Path(__file__).parents[2]
SETTINGS = '[files]\nallowed = ["audiences"]\n'
RUN = """
import asyncio
from flows.import_audience import import_audience
from flows.params import ImportParams
async def main():
    for day in ("day1", "day2", "day1", "day1"):
        state = await import_audience(ImportParams(audience="people", path=f"audiences/{day}.csv"), return_state=True)
        print(state.name, state.message)
asyncio.run(main())
"""


async def test_a_file_is_imported_again_after_another_and_not_twice_in_a_row(
    tmp_path: Path, server: PrefectServer
) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    (tmp_path / "audiences").mkdir()
    for day, city in (("day1", "Bern"), ("day2", "Basel")):
        (tmp_path / "audiences" / f"{day}.csv").write_text(f"email,city\nsync@example.com,{city}\n")
    environment = server.environment() | {
        "POSTROAD_CONFIG": str(tmp_path / "postroad.toml"),
        "POSTROAD_STATE_DIR": str(tmp_path / ".postroad"),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    imported = "Completed 1 recipient imported into people; 0 rows were double, 0 refused"
    nothing = "Completed nothing to do: audiences/day1.csv was imported, and no other import came after it"
    assert done.stdout.splitlines() == [imported, imported, imported, nothing]
    engine = open_engine(sqlite_url(tmp_path / ".postroad"))
    assert recipients(engine) == {"sync@example.com": (None, {"city": "Bern"})}
    engine.dispose()
