"""campaign.yaml: errors name file, line and field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from postroad.campaign.definition import read_campaign
from postroad.errors import ConfigError
from tests.campaign.project import CAMPAIGN, TEXT


def write(folder: Path, text: str) -> Path:
    (folder / "hello.txt").write_text(TEXT, encoding="utf-8")
    path = folder / "campaign.yaml"
    path.write_text(text.lstrip(), encoding="utf-8")
    return path


def test_a_campaign_is_read_with_its_templates(tmp_path: Path) -> None:
    (tmp_path / "hello.html").write_text("\ufeff<p>Hello</p>\n", encoding="utf-8")  # as Notepad saves it
    text = CAMPAIGN.replace("  name: people", "  name: people\n  file: people.csv")
    text += (
        "    html: hello.html\n    at: 9:30\n  - wait: 3d\n  - email: again\n    subject: Again\n    text: hello.txt\n"
    )
    file = read_campaign(write(tmp_path, text + "class: urgent\ntime_zone: Asia/Kolkata\n"))
    assert file.definition.job_class == "urgent"
    assert file.definition.time_zone == "Asia/Kolkata"
    assert file.audience_file == tmp_path / "people.csv"
    assert [(step.name, step.kind) for step in file.steps] == [
        ("hello", "email"),
        ("wait-2", "wait"),
        ("again", "email"),
    ]
    assert file.steps[0].settings == {
        "subject": "Hello {{ name|default('you') }}",
        "text": TEXT,
        "html": "<p>Hello</p>\n",
        "at": "09:30",
    }
    assert file.steps[1].settings == {"wait_ms": timedelta(days=3) // timedelta(milliseconds=1)}
    assert (file.steps[2].settings["html"], file.steps[2].settings["at"]) == (None, None)


@pytest.mark.parametrize(
    ("written", "kept"),
    [("9:00", "09:00"), ("10:30", "10:30"), ("09:05", "09:05"), ('"18:45"', "18:45"), ("0:00", "00:00"), ("~", None)],
)
def test_times_of_day_are_parsed_as_text(tmp_path: Path, written: str, kept: str | None) -> None:
    """YAML 1.1 reads 10:30 as the number 630."""
    file = read_campaign(write(tmp_path, CAMPAIGN + f"    at: {written}\n"))
    assert file.steps[0].settings["at"] == kept


@pytest.mark.parametrize("written", ["2026", "1_5", "no", "2026-01-01", "2026-99-99", "null-and-void", "0x1f"])
def test_names_are_parsed_as_text(tmp_path: Path, written: str) -> None:
    """YAML 1.1 reads these as numbers, a boolean and dates, one of which is not valid."""
    text = CAMPAIGN.replace("name: spring", f"name: {written}").replace("email: hello", f"email: {written}")
    file = read_campaign(write(tmp_path, text))
    assert (file.definition.name, file.steps[0].name) == (written, written)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("{from: 9:00, to: 17:30}", ("09:00", "17:30", 7)),
        ("{from: 9:00, to: 0:00, days: [fri, mon]}", ("09:00", "00:00", 2)),
    ],
)
def test_a_window_is_stored_as_hours_and_days(tmp_path: Path, written: str, kept: tuple[str, str, int]) -> None:
    window = read_campaign(write(tmp_path, CAMPAIGN + f"window: {written}\n")).definition.window
    assert window is not None
    assert (window.to_row()["from"], window.to_row()["to"], len(window.to_row()["days"])) == kept
    assert window.to_row()["days"] == sorted(
        window.to_row()["days"], key=["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index
    )


@dataclass(frozen=True, kw_only=True)
class Wrong:
    text: str
    says: str
    line: int | None = None
    field: str = ""


def changed(old: str, new: str) -> str:
    assert old in CAMPAIGN
    return CAMPAIGN.replace(old, new)


SECOND = "  - email: more\n    subject: More\n    text: hello.txt\n"
WRONG = {
    "window that ends before it begins": Wrong(
        text=CAMPAIGN + "window: {from: 17:00, to: 9:00}\n",
        says="it must end after it begins",
        line=9,
        field="window",
    ),
    "overflow to its own sender": Wrong(
        text=CAMPAIGN + "overflow: {senders: [news], within: 1d}\n", says="campaign: overflow.senders must name each"
    ),
    "time of day after the window": Wrong(
        text=CAMPAIGN + "    at: 17:00\nwindow: {from: 9:00, to: 17:00}\n", says="at: 17:00, when the window is closed"
    ),
    "time of day before the window": Wrong(
        text=CAMPAIGN + "    at: 8:59\nwindow: {from: 9:00, to: 00:00}\n", says="at: 08:59, when the window is closed"
    ),
    "window without an end": Wrong(text=CAMPAIGN + "window: {from: 9:00}\n", says="missing", field="window.to"),
    "day that is none": Wrong(
        text=CAMPAIGN + "window:\n  from: 9:00\n  to: 17:00\n  days: [monday]\n", says="mon", line=12
    ),
    "empty": Wrong(text="", says="the file must be a mapping", line=1),
    "a list": Wrong(text="- a\n", says="the file must be a mapping", line=1),
    "a word": Wrong(text="spring\n", says="the file must be a mapping", line=1),
    "no YAML": Wrong(text="name: spring\nsteps: [\n", says="not YAML", line=3),
    "a tab": Wrong(text="name: spring\n\tsender: news\n", says="not YAML", line=2),
    "two documents": Wrong(text=CAMPAIGN + "---\nname: other\n", says="not YAML", line=9),
    "an object of Python": Wrong(text="name: !!python/object:os.system {}\n", says="not YAML", line=1),
    "a key that is a list": Wrong(text="name: spring\n? [a]\n: b\n", says="not YAML", line=2),
    "a control character": Wrong(text="name: spring\nsender: a\x07b\n", says="the character '.x07'", line=2),
    "a date that is none": Wrong(text=changed("spring", "2026-99-99T"), says="name: ", line=1, field="name"),
    "a key twice": Wrong(text=CAMPAIGN + "sender: other\n", says="'sender' is given twice", line=9),
    "a key of a step twice": Wrong(text=CAMPAIGN + "    subject: B\n", says="'subject' is given twice", line=9),
    "an alias within itself": Wrong(
        text=changed("name: people", "name: &a [*a]"), says="within the value that it repeats", line=4
    ),
    "aliases that multiply": Wrong(
        text=CAMPAIGN
        + "a0: &a0 {x: y}\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)),
        says="more than 10,000 values",
        line=13,
    ),
    "no name": Wrong(text=changed("name: spring\n", ""), says="name: it is missing", line=1, field="name"),
    "no sender": Wrong(text=changed("sender: news\n", ""), says="sender: it is missing", line=1, field="sender"),
    "no audience": Wrong(
        text=changed("audience:\n  name: people\n", ""), says="audience: it is missing", line=1, field="audience"
    ),
    "no name of the audience": Wrong(
        text=changed("  name: people", "  file: x.csv"), says="audience.name: it is missing", line=4
    ),
    "no steps": Wrong(text=CAMPAIGN[: CAMPAIGN.index("steps")] + "steps: []\n", says="steps: .* 1 or more", line=5),
    "steps are no list": Wrong(
        text=CAMPAIGN[: CAMPAIGN.index("steps")] + "steps: hello\n",
        says="steps: it must be a list",
        line=5,
        field="steps",
    ),
    "a name with a space": Wrong(
        text=changed("name: spring", "name: Spring time"), says="name: up to 64 lower-case letters", line=1
    ),
    "a long name": Wrong(
        text=changed("name: spring", f"name: {'x' * 65}"), says="name: up to 64 lower-case letters", line=1
    ),
    "an unknown field": Wrong(text=CAMPAIGN + "colour: red\n", says="colour is not a field of campaign", line=9),
    "an unknown class": Wrong(text=CAMPAIGN + "class: fast\n", says="class: it must be 'urgent'", line=9),
    "an unknown zone": Wrong(text=CAMPAIGN + "time_zone: Mars\n", says="time_zone: 'Mars' is not a time zone", line=9),
    "a step that is a word": Wrong(text=CAMPAIGN + "  - hello\n", says="steps.2: it must be a mapping", line=9),
    "a step without a name": Wrong(
        text=CAMPAIGN + "  - subject: Hi\n    text: hello.txt\n", says="steps.2.email: it is missing", line=9
    ),
    "a step without a subject": Wrong(
        text=CAMPAIGN + "  - email: more\n    text: hello.txt\n", says="steps.2.subject: it is missing", line=9
    ),
    "a subject of nothing": Wrong(
        text=CAMPAIGN + SECOND.replace("subject: More", 'subject: ""'), says="steps.2.subject: .*at least 1", line=10
    ),
    "a step without a text": Wrong(
        text=CAMPAIGN + "  - email: more\n    subject: More\n", says="steps.2: it needs text, html or mjml", line=9
    ),
    "a field that steps lack": Wrong(
        text=CAMPAIGN + SECOND + "    colour: red\n", says="colour is not a field of steps.2", line=12
    ),
    "two steps of a name": Wrong(text=CAMPAIGN + SECOND.replace("more", "hello"), says="two steps are called", line=9),
    "a wait that is no duration": Wrong(
        text=CAMPAIGN + "  - wait: soon\n" + SECOND, says="steps.2.wait: 'soon' is not a duration", line=9
    ),
    "a wait without a unit": Wrong(
        text=CAMPAIGN + "  - wait: 5\n" + SECOND, says="steps.2.wait: '5' is not a duration", line=9
    ),
    "a wait that YAML takes for a truth": Wrong(
        text=CAMPAIGN + "  - wait: yes\n" + SECOND, says="steps.2.wait: ", line=9
    ),
    "a wait of nothing": Wrong(
        text=CAMPAIGN + "  - wait: 0s\n" + SECOND, says="steps.2.wait: .*greater than 0", line=9
    ),
    "a wait for ever": Wrong(
        text=CAMPAIGN + "  - wait: 99999999999d\n" + SECOND, says="steps.2.wait: .*less than or equal", line=9
    ),
    "a wait with more": Wrong(
        text=CAMPAIGN + "  - wait: 1d\n    subject: x\n" + SECOND, says="subject is not a field of steps.2", line=10
    ),
    "a wait at the end": Wrong(text=CAMPAIGN + "  - wait: 1d\n", says="no email follows the last step", line=9),
    "a time of day that is none": Wrong(text=CAMPAIGN + "    at: noon\n", says="steps.1.at: .*time of day", line=9),
    "a time of day past the end": Wrong(text=CAMPAIGN + "    at: 24:00\n", says="steps.1.at: .*time of day", line=9),
    "a time of day with a zone": Wrong(
        text=CAMPAIGN + "    at: 09:00+02:00\n", says="steps.1.at: .*time of day", line=9
    ),
    "a time of day in seconds": Wrong(text=CAMPAIGN + "    at: 540\n", says="steps.1.at: .*time of day", line=9),
    "a time of day to the second": Wrong(
        text=CAMPAIGN + "    at: 09:00:30\n", says="steps.1.at: .*time of day", line=9
    ),
    "a template that is not there": Wrong(
        text=changed("hello.txt", "none.txt"), says="there is no file .*none.txt", line=6, field="steps.1.text"
    ),
    "an html template that is not there": Wrong(
        text=CAMPAIGN + "    html: none.html\n", says="there is no file .*none.html", line=6, field="steps.1.html"
    ),
    "a template that is a folder": Wrong(text=changed("hello.txt", "."), says="Is a directory", field="steps.1.text"),
    "a template whose name is none": Wrong(
        text=changed("hello.txt", '"hello\\0.txt"'), says="null byte", field="steps.1.text"
    ),
    "a template whose name is too long": Wrong(
        text=changed("hello.txt", "x" * 300), says="name too long", field="steps.1.text"
    ),
    "a NUL in a subject": Wrong(
        text=CAMPAIGN + SECOND.replace("subject: More", 'subject: "a\\0b"'),
        says="a NUL character",
        line=10,
        field="steps.2.subject",
    ),
    "half a character in a subject": Wrong(
        text=CAMPAIGN + SECOND.replace("subject: More", 'subject: "a\\ud800b"'),
        says="half of a character",
        line=10,
        field="steps.2.subject",
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_definition_fault_names_file_line_and_field(tmp_path: Path, wrong: Wrong) -> None:
    path = write(tmp_path, wrong.text)
    with pytest.raises(ConfigError, match=wrong.says) as caught:
        read_campaign(path)
    where = caught.value.where or ""
    assert where.startswith(f"{path}, line ")
    if wrong.line is not None:
        number = where.removeprefix(f"{path}, line ").partition(",")[0]
        assert int(number) == wrong.line
    assert wrong.field in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file") as caught:
        read_campaign(tmp_path / "campaign.yaml")
    assert caught.value.where == str(tmp_path / "campaign.yaml")


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_bytes("name: spr\xefng\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8 at byte 9"):
        read_campaign(path)


@pytest.mark.parametrize(("content", "says"), [(b"caf\xe9", "not UTF-8 at byte 3"), (b"a\0b", "a NUL character")])
def test_a_template_that_is_not_text_is_an_error(tmp_path: Path, content: bytes, says: str) -> None:
    path = write(tmp_path, CAMPAIGN)
    (tmp_path / "hello.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_campaign(path)
    assert caught.value.where == f"{path}, line 6, steps.1.text"
