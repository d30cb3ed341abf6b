"""Doctor reports names without effect: misspelt variables and queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.doctor.configuration import check_names
from postroad.queue import Health
from postroad.settings import Settings


def test_misspelt_queues_and_variables_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postroad.toml").write_text('[queues."email:sned"]\nrate = "1/1s"\n[queues."email:send"]\n')
    monkeypatch.setenv("POSTROAD_LOGLEVEL", "hunter2")
    found = {check.part: check for check in check_names(Settings.load(tmp_path / "postroad.toml"))}
    assert {check.health for check in found.values()} == {Health.WARN}
    assert "POSTROAD_LOGLEVEL" in found["environment"].seen
    assert found["environment"].remedy == "Did you mean 'POSTROAD_LOG_LEVEL'?"
    assert "'email:sned'" in found["queue names"].seen
    assert found["queue names"].remedy.startswith("Did you mean 'email:send'")
    assert not any("hunter2" in f"{check.seen} {check.remedy}" for check in found.values())
