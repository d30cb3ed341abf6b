"""`postroad backup`: what it prints, how it ends, and which keys a backup has."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.backup.backups import rewrite
from tests.cli.site import Site, a_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        (site.folder / "backups").mkdir()
        yield site


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info)) is not None}


def test_a_backup_is_made_and_verified(site: Site) -> None:
    made = site.run("backup", "create", "backups")
    assert made.returncode == 0, made.stderr
    [file] = (site.folder / "backups").iterdir()
    assert made.stdout.startswith(f"backups/{file.name}: 0.")
    assert made.stdout.endswith("1 recipient, 0 touches, 0 suppressions\n")
    assert members(file)["secret.key"] == (site.folder / ".postroad/secret.key").read_bytes()

    verified = site.run("backup", "verify", "backups", terminal=True)
    assert verified.returncode == 0, verified.stderr
    assert f"backups/{file.name}: restored and equal to its manifest" in verified.stdout
    for part in ("digests, MB", "restoring", "counting"):
        assert part in verified.stderr
    again = json.loads(site.run("backup", "verify", f"backups/{file.name}", "--json").stdout)
    assert again["verified"] is True
    assert again["key"] == "backup"
    assert again["manifest"]["sums"]["rows"]["recipient"] == 1


def test_a_difference_is_an_error_and_json_has_all_of_them(site: Site) -> None:
    site.run("backup", "create", "wrong.tar")
    rewrite(site.folder / "wrong.tar", lambda it: msgspec.structs.replace(it, revision="0040"))
    done = site.run("backup", "verify", "wrong.tar", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["differences"] == [json.loads(done.stderr)["error"]["message"].split(": ", 1)[1]]
    assert (
        "wrong.tar: the restored database differs: revision: 0040" in site.run("backup", "verify", "wrong.tar").stderr
    )


def test_a_key_of_the_settings_is_not_included(site: Site) -> None:
    environment = dict(site.environment)
    site.environment["POSTROAD_SECRET_KEY"] = "k" * 40
    try:
        assert site.run("backup", "create", "set.tar").returncode == 0
        assert "secret.key" not in members(site.folder / "set.tar")
        assert json.loads(site.run("backup", "verify", "set.tar", "--json").stdout)["key"] == "settings"
    finally:
        site.environment = environment
    other = site.run("backup", "verify", "set.tar")
    assert other.returncode == 0
    assert "warning the secret key is neither in this backup nor in these settings" in other.stderr


def test_a_generated_key_may_be_left_out(site: Site) -> None:
    assert site.run("backup", "create", "without.tar", "--without-key").returncode == 0
    content = members(site.folder / "without.tar")
    assert "secret.key" not in content
    assert (site.folder / ".postroad/secret.key").read_text() not in content["manifest.json"].decode()


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("verify", "box"), 7, "the folder has no backup"),
        (("verify", "people.csv"), 4, "is no backup"),
        (("verify", "missing.tar"), 2, "does not exist"),
        (("create", "missing/backup.tar"), 3, "No such file"),
        (("verify", "people.csv", "--server", "postgresql://ada:s3cret@host/db"), 2, "other users"),
        (("verify", "people.csv", "--server", "mysql://host/db"), 2, "not the URL of a PostgreSQL server"),
        (("verify", "people.csv", "--server", "postgresql://host:port/db"), 2, "not the URL"),
    ],
)
def test_each_error_has_its_exit_code(words: tuple[str, ...], code: int, reason: str, site: Site) -> None:
    done = site.run("backup", *words)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
