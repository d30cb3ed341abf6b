"""A campaign and a form reach no file of the worker but those that they may, and no error quotes what a file holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from postroad.campaign.audience import import_file, open_import
from postroad.campaign.definition import read_campaign
from postroad.campaign.file_access import FileRefusedError, FileRules, import_rules
from postroad.campaign.suppression_file import read_addresses
from postroad.errors import ConfigError, DataError
from postroad.settings import Settings
from tests.attacks.limits import run_limited
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, TEXT, CampaignProject

SECRET = "5ec4e7f00dcafe5ec4e7f00dcafe"
NAMED = {
    "attachments": "    attachments: [{path}]\n",
    "inline": "    html: hello.html\n    inline: [{path}]\n",
    "html": "    html: {path}\n",
    "mjml": "    mjml: {path}\n",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A project: settings, a state folder with a key, a campaign in a folder of its own, and a secret outside."""
    for folder in ("project", "project/state", "project/spring", "project/audiences", "project/spring/sub", "other"):
        (tmp_path / folder).mkdir()
    root = tmp_path / "project"
    (root / "postroad.toml").write_text('state_dir = "state"\n' + CONFIG)
    for file in ("project/state/secret.key", "project/dkim.pem", "other/secret.key"):
        (tmp_path / file).write_text(SECRET + "\n")
    (root / "spring/hello.txt").write_text(TEXT)
    (root / "spring/hello.html").write_text("<p>Hello</p>")
    return root


def apply_naming(workspace: Path, field: str, path: str) -> None:
    file = workspace / "spring/campaign.yaml"
    text = CAMPAIGN + NAMED[field].format(path=path)
    file.write_text(text)
    read_campaign(file, Settings.load(workspace / "postroad.toml"))


def symbolic(target: str) -> Callable[[Path], str]:
    def make(workspace: Path) -> str:
        (workspace / "spring/link").symlink_to(target)
        return "link"

    return make


def link_to_folder(workspace: Path) -> str:
    (workspace / "spring/folder").symlink_to("../state")
    return "folder/secret.key"


def fifo(workspace: Path) -> str:
    os.mkfifo(workspace / "spring/fifo")
    return "fifo"


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "parent": lambda _: "../state/secret.key",
    "parent within": lambda _: "sub/../../state/secret.key",
    "absolute": lambda workspace: str(workspace / "state/secret.key"),
    "other folder": lambda workspace: str(workspace.parent / "other/secret.key"),
    "settings": lambda _: "../postroad.toml",
    "symbolic link": symbolic("../state/secret.key"),
    "symbolic link to a folder": link_to_folder,
    "device": lambda _: "/dev/zero",
    "link to a device": symbolic("/dev/zero"),
    "process": lambda _: "/proc/self/environ",
    "fifo": fifo,
    "the folder itself": lambda _: ".",
    "long": lambda _: "a/" * 3_000 + "b",
}


@pytest.mark.parametrize("field", NAMED)
@pytest.mark.parametrize("attack", OUTSIDE.values(), ids=OUTSIDE)
def test_a_campaign_names_no_file_outside_its_folder(
    workspace: Path, field: str, attack: Callable[[Path], str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_naming(workspace, field, attack(workspace))
    assert "campaign.yaml, line 7, steps.1" in (caught.value.where or "")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", ["../state/secret.key", "../postroad.toml", "/etc/passwd", "../../other/secret.key"])
def test_an_audience_file_is_within_the_folders_too(workspace: Path, path: str) -> None:
    file = workspace / "spring/campaign.yaml"
    file.write_text(CAMPAIGN.replace("name: people", f"name: people\n  file: {path}"))
    with pytest.raises(ConfigError, match=r"may not be read|outside the folders") as caught:
        read_campaign(file, Settings.load(workspace / "postroad.toml"))
    assert "campaign.yaml, line 6, audience.file" in (caught.value.where or "")


def test_the_state_folder_and_keys_stay_closed_within_allowed_folders(workspace: Path) -> None:
    (workspace / "postroad.toml").write_text(f'state_dir = "state"\n{CONFIG}\n[files]\nallowed = ["."]\n')
    (workspace / "terms.pdf").write_bytes(b"terms")
    apply_naming(workspace, "attachments", "../terms.pdf")
    for secret in ("../state/secret.key", "../postroad.toml", "../dkim.pem"):
        with pytest.raises(ConfigError, match="are excluded"):
            apply_naming(workspace, "attachments", secret)


def test_a_file_within_may_be_named_by_a_symbolic_link(workspace: Path) -> None:
    (workspace / "spring/sub/terms.pdf").write_bytes(b"terms")
    (workspace / "spring/link.pdf").symlink_to("sub/terms.pdf")
    apply_naming(workspace, "attachments", "link.pdf")


def test_a_path_that_changes_while_it_is_opened_leads_to_no_other_file(workspace: Path) -> None:
    """A folder is exchanged for a link to a secret one, again and again, while a file in it is opened."""
    spring = workspace / "spring"
    (spring / "sub/secret.key").write_text("harmless")
    rules = FileRules(folders=(spring,))
    stop = Event()

    def exchange() -> None:
        while not stop.is_set():
            (spring / "sub").rename(spring / "aside")
            (spring / "sub").symlink_to("../state")
            (spring / "sub").unlink()
            (spring / "aside").rename(spring / "sub")

    attacker = Thread(target=exchange)
    attacker.start()
    opened = 0
    try:
        for _ in range(3_000):
            try:
                with rules.open(spring / "sub/secret.key") as file:
                    assert file.read() == b"harmless"
                    opened += 1
            except (FileRefusedError, OSError):
                pass
    finally:
        stop.set()
        attacker.join()
    assert opened, "it was never there, so nothing was shown"


FORM = ["state/secret.key", "postroad.toml", "../other/secret.key", "/etc/passwd", "audiences/link", "spring/hello.txt"]


@pytest.mark.parametrize("path", FORM)
def test_the_form_of_an_import_reaches_no_other_file(workspace: Path, engine: object, path: str) -> None:
    settings = Settings.load(workspace / "postroad.toml")
    (workspace / "audiences/link").symlink_to("../state/secret.key")
    file = settings.base_dir / path
    with pytest.raises(DataError, match=r"may not be read|outside the folders") as caught:
        open_import(engine, "people", file, NOW, rules=import_rules(engine, settings, file))  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_the_form_reads_allowed_folders_and_those_of_campaigns(workspace: Path, engine: object) -> None:
    (workspace / "postroad.toml").write_text('campaigns = ["*/campaign.yaml"]\nstate_dir = "state"\n' + CONFIG)
    (workspace / "spring/campaign.yaml").write_text(CAMPAIGN)
    settings = Settings.load(workspace / "postroad.toml")
    for path in ("audiences/people.csv", "spring/people.csv"):
        file = settings.base_dir / path
        file.write_text(f"email\n{path[:3]}@example.com\n")
        progress = open_import(engine, "people", file, NOW, rules=import_rules(engine, settings, file))  # type: ignore[arg-type]
        assert progress.rows_total == 1


@pytest.mark.parametrize("target", ["state", "../other"])
def test_a_folder_that_becomes_a_link_after_apply_is_not_followed(
    project: CampaignProject, tmp_path: Path, target: str
) -> None:
    audience = project.settings.base_dir / "audiences"
    audience.mkdir()
    (audience / "people.csv").write_text("email\na@example.com\n")
    project.apply(CAMPAIGN.replace("name: people", "name: people\n  file: audiences/people.csv"))
    file = (audience / "people.csv").resolve()
    rules = import_rules(project.engine, project.settings, file)
    with rules.open(file) as opened:
        assert opened.read().startswith(b"email")
    folder = tmp_path / "outside" if target == "../other" else project.settings.state_dir
    folder.mkdir(exist_ok=True)
    (folder / "people.csv").write_text(f"email,{SECRET}\n")
    audience.rename(audience.with_name("before"))
    audience.symlink_to(folder)
    for held in (rules, import_rules(project.engine, project.settings, file)):
        with pytest.raises(FileRefusedError):
            held.open(file)


QUOTING = {
    "a key": SECRET,
    "a key of two lines": f"{SECRET}\n{SECRET}\n",
    "columns": f"a,{SECRET},b\n",
    "one name twice": f"email,{SECRET},{SECRET}\n",
    "no field": f"email,1{SECRET}\n",
    "a long row": f"email\n{SECRET},{SECRET}\n",
    "a quote": f'email\n"{SECRET}\n',
    "a quote in a field": f'email\n"{SECRET}"{SECRET}\n',
    "NUL": f"email\n{SECRET}\0\n",
    "latin-1": f"email\n{SECRET}\xe9\n",
    "PEM": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n",
    "TOML": f'secret_key = "{SECRET}"\n',
}


@pytest.mark.parametrize("content", QUOTING.values(), ids=QUOTING)
def test_an_error_of_a_csv_does_not_quote_it(tmp_path: Path, engine: object, content: str) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        import_file(engine, "people", path, NOW)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert str(path) in (caught.value.where or "")
    with pytest.raises(DataError) as caught:
        read_addresses(path)
    assert SECRET not in str(caught.value)


def test_an_address_in_a_list_of_suppressions_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "suppressions.csv"
    path.write_text(f"email\n{SECRET}\n")
    with pytest.raises(DataError) as caught:
        read_addresses(path)
    assert SECRET not in str(caught.value)
    assert caught.value.where == f"{path}, line 2"


def import_zero() -> None:
    read_addresses(Path("/dev/zero"))


def read_zero() -> None:
    read_campaign(Path("/dev/zero"))


@pytest.mark.parametrize("target", ["import_zero", "read_zero"])
def test_a_device_is_no_file(target: str) -> None:
    outcome = run_limited(f"tests.attacks.test_files:{target}", cpu_s=1, memory_mib=50)
    assert outcome.error in ("DataError", "ConfigError")
    assert "is not a regular file" in outcome.message
