"""The pictures of the console in the documentation show the pages as they are. No browser is needed."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from tests.console.pictures import (
    COMMAND,
    DIGESTS,
    FOLDER,
    MAX_HEIGHT,
    PAGES,
    WIDTH,
    content_of,
    digest_of,
    pages,
    story_console,
)
from tests.docs.pages import ROOT

MAX_BYTES = 1_500_000


async def test_each_picture_shows_its_page_as_it_is(redis_url: str, tmp_path: Path) -> None:
    stored = json.loads(DIGESTS.read_text(encoding="utf-8"))
    async with story_console(tmp_path, redis_url) as console:
        found = await pages(console)
    assert {reply.status_code for reply in found.values()} == {200}
    changed = [name for name, reply in found.items() if stored.get(name) != digest_of(reply)]
    assert changed == [], f"These pages changed. `{COMMAND}` makes their pictures again: look at them, and commit them."
    assert stored.keys() == PAGES.keys()


async def test_the_pages_of_the_pictures_are_the_same_each_time(redis_url: str, tmp_path: Path) -> None:
    seen = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with story_console(folder, redis_url) as console:
            seen.append({name: content_of(reply) for name, reply in (await pages(console)).items()})
    for name in PAGES:
        assert seen[0][name] == seen[1][name], name


def test_the_pictures_are_few_small_and_shown() -> None:
    files = {file.name: file for file in FOLDER.glob("console-*.png")}
    assert set(files) == {f"console-{name}.png" for name in PAGES}
    for file in files.values():
        head = file.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n", file
        width, height = struct.unpack(">II", head[16:24])
        assert (width, height <= MAX_HEIGHT) == (WIDTH, True), file
    assert sum(file.stat().st_size for file in files.values()) < MAX_BYTES
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
    shown = {Path(path).name for text in texts for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)}
    assert set(files) <= shown, "each picture is on a page"
