"""`postroad init` makes a project at once or not at all, and `up` and `demo` say where they run."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from postroad.embedded import stop_redis
from postroad.settings import Settings
from tests.commands import run_command

ROOT = Path(__file__).parents[2]
EXAMPLES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/[tw]*/*")}
FILES = {"postroad.toml", ".gitignore", *EXAMPLES}
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith(("POSTROAD_", "PREFECT_"))}
ENVIRONMENT = {**INHERITED, "PREFECT_API_URL": "http://127.0.0.1:1/api"}


def postroad(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_command(folder, ENVIRONMENT, *words)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error ")
    assert len(done.stderr.splitlines()) == 2, "the error and its remedy"
    return done.stderr


def test_a_project_has_the_settings_and_the_examples(tmp_path: Path) -> None:
    done = postroad(tmp_path, "init", "my-mail")
    assert done.returncode == 0, done.stderr
    made = files_in(tmp_path / "my-mail")
    assert made.keys() == FILES
    assert {name: made[name] for name in EXAMPLES} == {name: (ROOT / name).read_bytes() for name in EXAMPLES}
    assert made[".gitignore"].splitlines()[-1] == b"/.postroad/"
    assert [path.name for path in tmp_path.iterdir()] == ["my-mail"]
    assert "  cd my-mail\n  postroad up" in done.stdout


def test_all_mail_of_a_project_goes_to_this_machine(tmp_path: Path) -> None:
    postroad(tmp_path, "init", "my-mail")
    settings = Settings.load(tmp_path / "my-mail/postroad.toml")
    assert {settings.routes[sender.route].host for sender in settings.senders.values()} == {"127.0.0.1"}
    assert [route.host for route in settings.routes.values()] == ["127.0.0.1"]


def test_a_project_is_private(tmp_path: Path) -> None:
    postroad(tmp_path, "init", "my-mail")
    made = [tmp_path / "my-mail", *(tmp_path / "my-mail").rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_the_examples_of_a_project_are_valid_campaigns(tmp_path: Path) -> None:
    postroad(tmp_path, "init", "my-mail")
    try:
        for name in ("welcome", "trial"):
            done = postroad(tmp_path / "my-mail", "campaign", "apply", f"examples/{name}/campaign.yaml")
            assert done.returncode == 0, done.stderr
    finally:
        stop_redis(tmp_path / "my-mail/.postroad")


@pytest.mark.parametrize("named", [".", "", "../empty"])
def test_an_empty_folder_becomes_a_project_and_stays_the_same_folder(named: str, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir(mode=0o750)
    before = folder.stat()
    done = postroad(folder, "init", named, "--json")
    assert json.loads(done.stdout) == {"folder": str(folder), "files": sorted(FILES), "next": ["postroad up"]}
    assert files_in(folder).keys() == FILES
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert {path.name for path in folder.iterdir()} == {"postroad.toml", ".gitignore", "examples"}


def test_a_second_project_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    assert postroad(tmp_path, "init", "my-mail").returncode == 0
    (tmp_path / "my-mail/postroad.toml").write_text("# changed\n")
    before = files_in(tmp_path)
    assert "my-mail is not an empty folder" in failed(postroad(tmp_path, "init", "my-mail"), 7)
    assert files_in(tmp_path) == before
    error = json.loads(postroad(tmp_path, "init", "my-mail", "--json").stderr)["error"]
    assert error["code"] == 7


@pytest.mark.parametrize("name", ["people.csv", ".hidden"])
def test_a_folder_with_a_file_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("address\n")
    failed(postroad(tmp_path, "init", "mine"), 7)
    assert files_in(tmp_path) == {f"mine/{name}": b"address\n"}


def test_a_file_or_a_broken_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        failed(postroad(tmp_path, "init", name), 7)
    assert files_in(tmp_path) == {"file": b"mine"}
    assert (tmp_path / "link").readlink() == Path("nowhere")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_parent_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    assert "no/such is not a folder" in failed(postroad(tmp_path, "init", "no/such/my-mail"), 2)
    assert list(tmp_path.iterdir()) == []


def appear_meanwhile(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Make a file in a new folder, as another process may do it, after the folder was found to be empty."""
    make_folder = tempfile.mkdtemp

    def mkdtemp(**where: object) -> str:
        file.parent.mkdir()
        file.write_text("theirs")
        return make_folder(**where)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)


def test_a_folder_that_is_filled_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "my-mail/theirs"
    appear_meanwhile(monkeypatch, theirs)
    failed(postroad(tmp_path, "init", "my-mail"), 7)
    assert files_in(tmp_path) == {"my-mail/theirs": b"theirs"}


@pytest.mark.parametrize("name", ["examples/theirs", "postroad.toml/theirs"])
def test_an_empty_folder_that_is_filled_meanwhile_keeps_only_that(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / name
    appear_meanwhile(monkeypatch, theirs)
    failed(postroad(tmp_path, "init", "."), 7)
    assert files_in(tmp_path) == {name: b"theirs"}
    assert [path.name for path in tmp_path.iterdir()] == [theirs.parent.name]


@pytest.mark.parametrize("words", [("up",), ("demo",), ("demo", "trial")])
def test_a_folder_without_settings_is_named_with_what_makes_one(words: tuple[str, ...], tmp_path: Path) -> None:
    error = failed(postroad(tmp_path, *words), 2)
    assert f"{tmp_path}: there is no postroad.toml here" in error
    assert "`postroad init my-mail`" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("example", ["welcome", "trial"])
def test_a_demo_without_its_example_starts_nothing(example: str, tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_bytes((ROOT / "postroad.toml").read_bytes())
    assert f"the example {example} is not here" in failed(postroad(tmp_path, "demo", example), 7)
    assert [path.name for path in tmp_path.iterdir()] == ["postroad.toml"]


ANOTHER = """
[senders.news]
address = "news@example.com"
postal_address = "1 Post Road, Milestone"
route = "relay"
[routes.relay]
host = "smtp.example.com"
"""


@pytest.mark.parametrize(
    ("text", "changed", "says"),
    [
        ("[routes.sandbox]", f"{ANOTHER}[routes.sandbox]", "these senders have another one: news"),
        ('host = "127.0.0.1"', 'host = "smtp.example.com"', "it is not a host of this machine"),
        ('host = "127.0.0.1"\nport = 2525\ntls = "none"', 'kind = "direct"', "it is not a host of this machine"),
    ],
    ids=["sender", "host", "direct"],
)
def test_a_demo_refuses_settings_by_which_mail_would_leave(text: str, changed: str, says: str, tmp_path: Path) -> None:
    postroad(tmp_path, "init", "my-mail")
    settings = tmp_path / "my-mail/postroad.toml"
    content = settings.read_text()
    assert text in content
    settings.write_text(content.replace(text, changed))
    assert says in failed(postroad(tmp_path / "my-mail", "demo"), 7)
    assert not (tmp_path / "my-mail/.postroad").exists(), "nothing was started"
