"""Another user of the machine reads nothing of what Postroad keeps."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postroad.embedded import stop_redis
from postroad.state_folder import OTHERS, close_state_folder, open_entries
from tests.cli.conftest import SETTINGS

WIDE_FILE, WIDE_FOLDER = 0o644, 0o755


def postroad(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Run a command under the usual umask, which lets everybody read."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROAD_")}
    done = subprocess.run(
        [sys.executable, "-m", "postroad", *arguments, "--json"],
        cwd=folder,
        env=environment | {"PREFECT_API_URL": "http://127.0.0.1:1/api"},
        capture_output=True,
        text=True,
        umask=0o022,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Any:
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    yield tmp_path
    stop_redis(tmp_path / ".postroad")


def modes(folder: Path) -> dict[str, str]:
    """Whatever group or others can access, with its mode."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & OTHERS and not path.is_symlink():
            found[str(path.relative_to(folder))] = oct(mode)
    return found


def test_a_command_makes_files_for_its_owner_alone(site: Path) -> None:
    (site / "people.csv").write_text("address\nada@mailbox.example\n")
    postroad(site, "audience", "import", "news", "people.csv")
    postroad(site, "queue", "stats")
    made = {path.name for path in (site / ".postroad").iterdir()}
    assert {"postroad.db", "redis", "secret.key"} <= made
    assert modes(site / ".postroad") == {}


def test_a_folder_of_an_earlier_version_is_closed_with_all_that_it_holds(site: Path) -> None:
    postroad(site, "queue", "stats")
    state = site / ".postroad"
    mail = state / "sandbox" / "Maildir" / "new"
    mail.mkdir(parents=True)
    for name in ("sandbox/Maildir/new/1.eml", "logs.log", "postroad.db-wal"):
        (state / name).touch()
    (site / "outside").touch()
    (site / "outside").chmod(WIDE_FILE)
    (state / "link").symlink_to(site / "outside")
    for path in state.rglob("*"):
        if not path.is_symlink() and not path.is_socket():
            path.chmod(WIDE_FOLDER if path.is_dir() else WIDE_FILE)
    state.chmod(WIDE_FOLDER)
    assert len(modes(state)) > 8
    postroad(site, "suppression", "list")
    assert modes(state) == {}
    assert stat.S_IMODE((site / "outside").stat().st_mode) == WIDE_FILE


def test_a_folder_that_is_shared_keeps_its_mode_and_doctor_says_so(site: Path) -> None:
    """A user who sets the folder of postroad.toml, or a temporary one, does not expect its mode to change."""
    config = site / "postroad.toml"
    config.write_text(f'state_dir = "."\n{SETTINGS}')
    site.chmod(WIDE_FOLDER)
    config.chmod(WIDE_FILE)
    try:
        checks = {check["part"]: check for check in postroad(site, "doctor", code=1)}
        assert checks["state folder"]["health"] == "fail"
        assert checks["state folder"]["remedy"] == f"chmod -R go-rwx {site}"
        assert stat.S_IMODE(config.stat().st_mode) == WIDE_FILE
    finally:
        stop_redis(site)
    sticky = site / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    close_state_folder(sticky)
    assert open_entries(sticky, 3) == [sticky]
