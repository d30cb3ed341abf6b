"""The wheel of `uv build` works without a checkout: it makes a project, and Prefect delivers the example there."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from postroad.sandbox import accepted
from tests.kit.waiting import block_until
from tests.required import missing

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "flows", "tasks", "deployments", "examples", "tests/kit")
FILES = ("pyproject.toml", "hatch_build.py", "prefect.yaml", "postroad.toml", "README.md", "LICENSE", "CHANGELOG.md")
PROJECT_FILES = ("flows/*.py", "tasks/*.py", "deployments/*.py", "examples/[tw]*/*", "prefect.yaml", "postroad.toml")
OF_THE_OWNER = (
    *(".postroad/secret_key", ".venv/secret.txt", "postroad.toml.orig", "flows/.env", "tasks/notes.txt"),
    *("src/postroad/__pycache__/errors.pyc", "flows/__pycache__/campaign.pyc", "examples/welcome/.env"),
    *("deployments/compose/secrets/database_url", "examples/mine/people.csv"),
)
"""Files that a checkout may have and git does not."""
STARTS_WITHIN_S, DELIVERS_WITHIN_S, STOPS_WITHIN_S = 240, 150, 60

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]  # Longer than all that one test waits for.


@dataclass(frozen=True)
class InstalledWheel:
    """A wheel in an environment of its own. What it was built from no longer exists."""

    folder: Path
    files: Sequence[str]
    files_of_direct_build: Sequence[str]
    files_of_sdist: Sequence[str]

    @property
    def programs(self) -> Path:
        return self.folder / "venv/bin"

    @property
    def environment(self) -> dict[str, str]:
        temporary = {"TMPDIR": os.environ["TMPDIR"]} if "TMPDIR" in os.environ else {}
        return {"PATH": f"{self.programs}:{os.defpath}", "HOME": str(self.folder), "LANG": "C.UTF-8", **temporary}

    def postroad(self, *words: str, cwd: Path) -> str:
        return run([str(self.programs / "postroad"), *words], cwd, self.environment)

    def python(self, code: str, **variables: str) -> str:
        return run([str(self.programs / "python"), "-c", code], self.folder, self.environment | variables)


def run(command: list[str], cwd: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_checkout(source: Path) -> None:
    """Copy what a build may need, together with files that belong to the owner of a checkout."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
    for name in (*FILES, ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    for name in OF_THE_OWNER:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("private")


@pytest.fixture(scope="module")
def wheel() -> Iterator[InstalledWheel]:
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools/bin") or missing("uv", "make .venv/ready")
    # Compiling every module takes longer than importing those that are used.
    without = ("UV_COMPILE_BYTECODE", "VIRTUAL_ENV", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    with tempfile.TemporaryDirectory(prefix="pr-wheel-") as made:
        folder = Path(made).resolve()

        def build(*words: str) -> None:
            run([uv, *words], folder, environment)

        copy_checkout(folder / "source")
        build("build", "--python", sys.executable, "--out-dir", "dist", "source")
        build("build", "--python", sys.executable, "--out-dir", "direct", "--wheel", "source")
        shutil.rmtree(folder / "source")
        [sdist], [built], [direct] = (list(folder.glob(name)) for name in ("dist/*.gz", "dist/*.whl", "direct/*.whl"))
        locked = ("--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--project", str(ROOT))
        build("export", *locked, "--output-file", "locked.txt")
        build("venv", "--python", sys.executable, "venv")
        build("pip", "install", "--python", "venv/bin/python", "--no-deps", "-r", "locked.txt", str(built))
        build("pip", "check", "--python", "venv/bin/python")
        with zipfile.ZipFile(built) as one, zipfile.ZipFile(direct) as other, tarfile.open(sdist) as source:
            of_sdist = [name.partition("/")[2] for name in source.getnames()]
            yield InstalledWheel(folder, one.namelist(), other.namelist(), of_sdist)


def test_the_wheel_has_the_package_and_the_project_files(wheel: InstalledWheel) -> None:
    package = [path for path in (ROOT / "src/postroad").rglob("*") if path.is_file()]
    project = [path for pattern in PROJECT_FILES for path in ROOT.glob(pattern)]
    expected = {path.relative_to(ROOT / "src").as_posix() for path in package if "__pycache__" not in path.parts}
    expected |= {f"postroad/_project/{path.relative_to(ROOT).as_posix()}" for path in project}
    assert {name for name in wheel.files if not re.match(r"postroad-[\d.]+\.dist-info/", name)} == expected
    assert sorted(wheel.files) == sorted(wheel.files_of_direct_build), "it differs from the wheel of the sdist"


def test_files_of_the_owner_are_not_built(wheel: InstalledWheel) -> None:
    for built in (wheel.files, wheel.files_of_direct_build, wheel.files_of_sdist):
        assert len(built) > 500
        assert {Path(name).name for name in built} & {Path(name).name for name in OF_THE_OWNER} == set()
        parts = {part for name in built for part in Path(name).parts}
        assert parts & {"tests", "__pycache__", "secrets", "compose", "mine", ".postroad", ".venv"} == set()


def test_the_version_is_that_of_the_project(wheel: InstalledWheel) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert wheel.postroad("--version", cwd=wheel.folder) == f"postroad {version}\n"


IMPORTED = """
import json, sys
import flows.campaign, tasks.campaign, deployments.bootstrap, deployments.server
ours = ("postroad", "flows", "tasks", "deployments")
files = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in ours]
print(json.dumps({"path": sys.path, "files": [file for file in files if file]}))
"""


def test_the_flows_of_the_wheel_are_imported(wheel: InstalledWheel) -> None:
    where = wheel.python("from postroad.local.project_files import project_files; print(project_files())").strip()
    imported = json.loads(wheel.python(IMPORTED, PYTHONPATH=where))
    assert [entry for entry in imported["path"] if Path(entry).is_relative_to(ROOT)] == []
    assert {f"{where}/flows/campaign.py", f"{where}/deployments/server.py"} <= set(imported["files"])
    assert [file for file in imported["files"] if not Path(file).is_relative_to(wheel.folder / "venv")] == []


def test_a_new_project_delivers_the_example_and_stops(wheel: InstalledWheel) -> None:
    made = json.loads(wheel.postroad("init", "my-mail", "--json", cwd=wheel.folder))
    project = wheel.folder / "my-mail"
    assert made["folder"] == str(project)
    assert made["next"] == ["cd my-mail", "postroad up"]
    expected = accepting(project / "examples/welcome/recipients.csv")
    received = Counter[str]()

    def delivered() -> bool:
        messages = accepted(project / ".postroad/sandbox/accepted.jsonl")
        received.clear()
        received.update(message.recipient for message in messages if "+" not in message.recipient)
        return len(received) >= len(expected)

    with up(wheel, project) as log:
        assert re.search(r"^console +http://127\.0\.0\.1:\d+", log.read_text(), re.MULTILINE)
        assert re.search(r"^campaigns .*\bwelcome\b", log.read_text(), re.MULTILINE)
        wheel.postroad("campaign", "launch", "welcome", cwd=project)
        block_until(delivered, within_s=DELIVERS_WITHIN_S, every_s=0.5)
        processes = contexts_of(project)
        assert len(processes) > 6
        assert [process for process in processes if str(ROOT) in process] == []
    assert len(expected) > 900
    assert received == dict.fromkeys(expected, 1)
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(wheel.folder) not in left, "a process still runs"


def accepting(recipients: Path) -> set[str]:
    """Return the recipients of the example whose mail the sandbox accepts: their address is valid and has no tag."""
    with recipients.open(encoding="utf-8", newline="") as file:
        addresses = {row["email"].lower() for row in csv.DictReader(file)}
    return {address for address in addresses if re.fullmatch(r"reader\d+@[\w.-]+", address)}


@contextmanager
def up(wheel: InstalledWheel, project: Path) -> Iterator[Path]:
    """Run `postroad up` in a folder. Yield its log once everything runs, and stop it by Ctrl-C."""
    log = wheel.folder / "up.log"
    command = [str(wheel.programs / "postroad"), "up"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=project, env=wheel.environment, stdout=output, stderr=output)

    def started() -> bool:
        assert process.poll() is None, log.read_text()
        return "captured mail" in log.read_text()

    try:
        block_until(started, within_s=STARTS_WITHIN_S, every_s=0.2)
        yield log
        process.send_signal(signal.SIGINT)
        assert process.wait(STOPS_WITHIN_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def contexts_of(project: Path) -> list[str]:
    """Return command, environment and working folder of each process that was started for a project."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            content = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            context = f"{content.decode(errors='replace')} {(process / 'cwd').readlink()}"
            if str(project) in context:
                found.append(context)
    return found
