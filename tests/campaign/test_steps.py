"""The steps of a journey in campaign.yaml: their names, what follows each, and what cannot be written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.errors import ConfigError, StateError
from postroad.store.campaign import StepKind
from tests.campaign.journeys import JOURNEY, launched
from tests.campaign.project import CAMPAIGN, TEXT, CampaignProject

K = StepKind


def read(folder: Path, text: str) -> CampaignFile:
    text = text.lstrip()
    (folder / "hello.txt").write_text(TEXT)
    (folder / "campaign.yaml").write_text(text)
    return read_campaign(folder / "campaign.yaml")


def test_steps_are_rows_in_reading_order_that_name_what_follows(tmp_path: Path) -> None:
    rows = read(tmp_path, JOURNEY).steps
    ways = {
        row.name: {key: row.settings[key] for key in ("next", "then", "else") if key in row.settings} for row in rows
    }
    assert [(row.name, row.kind) for row in rows] == [
        ("hello", K.EMAIL),
        ("wait-2", K.WAIT),
        ("if-3", K.IF),
        ("big", K.EMAIL),
        ("in-germany", K.IF),
        ("german", K.EMAIL),
        ("wait-until-7", K.WAIT_UNTIL),
        ("last", K.EMAIL),
    ]
    assert ways == {
        "hello": {"next": "wait-2"},
        "wait-2": {"next": "if-3"},
        "if-3": {"then": "big", "else": "in-germany"},
        "big": {"next": "wait-until-7"},
        "in-germany": {"then": "german", "else": "wait-until-7"},
        "german": {"next": "wait-until-7"},
        "wait-until-7": {"next": "last"},
        "last": {"next": None},
    }


def test_the_rows_of_a_campaign_without_enrolments_are_as_before(tmp_path: Path) -> None:
    more = CAMPAIGN + "  - wait: 1d\n  - email: more\n    subject: More\n    text: hello.txt\n"
    file = read(tmp_path, more)
    assert file.journey is None
    assert [(row.name, row.kind) for row in file.steps] == [("hello", K.EMAIL), ("wait-2", K.WAIT), ("more", K.EMAIL)]
    assert all("next" not in row.settings for row in file.steps)


EMAIL = "{email: more, subject: More, text: hello.txt}"
WRONG = {
    "an unknown function": (
        "  - if: \"visited('x')\"\n    then:\n      - " + EMAIL,
        r"line 9, steps.2.if, column 1: .*visited",
    ),
    "clicks, which are not counted": (
        "  - if: \"clicked('hello')\"\n    then:\n      - " + EMAIL,
        r"line 9, steps.2.if, column 1: .*clicks",
    ),
    "a condition that does not end": ('  - if: "plan = "\n    then:\n      - ' + EMAIL, r"line 9, steps.2.if, column"),
    "a step that does not exist": (
        "  - if: \"accepted('helo')\"\n    then:\n      - " + EMAIL,
        r"line 9, steps.2.if: .*'helo'(.|\n)*hello",
    ),
    "a date that is a text": ("  - wait_until: \"'soon'\"\n  - " + EMAIL, r"line 9, steps.2.wait_until, column"),
    "no branch": ("  - if: \"plan = 'a'\"\n", r"line 9: steps.2.then: it is missing"),
    "an empty branch": ("  - if: \"plan = 'a'\"\n    then: []\n", r"line 10: steps.2.then: .*1 or more"),
    "a misspelt field": (
        "  - if: \"plan = 'a'\"\n    than:\n      - " + EMAIL,
        r"line 10: than is not a field of steps.2(.|\n)*then",
    ),
    "an error in a branch": (
        "  - if: \"plan = 'a'\"\n    then:\n      - {email: more, text: hello.txt}\n",
        r"line 11: steps.2.then.1.subject: it is missing",
    ),
    "a name twice, in another branch": (
        "  - if: \"plan = 'a'\"\n    then:\n      - {email: hello, subject: A, text: hello.txt}\n",
        r"line 11, steps.2.then.1: two steps are called 'hello'",
    ),
    "a wait at the end of the last branch": (
        "  - if: \"plan = 'a'\"\n    then:\n      - " + EMAIL + "\n      - wait: 1d\n",
        r"line 12, steps.2.then.2: no email follows step wait-4, which waits",
    ),
    "branches without an email": (
        "  - if: \"plan = 'a'\"\n    then:\n      - wait: 1d\n",
        r"line 9, steps.2: no email follows the last step, which chooses",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_an_error_names_file_line_and_field(tmp_path: Path, case: tuple[str, str]) -> None:
    steps, says = case
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, CAMPAIGN + steps)
    assert re.search(says, str(caught.value).replace(str(tmp_path), "")), caught.value


@pytest.mark.parametrize("field", ["exit", "goal"])
def test_an_error_in_exit_and_goal_names_the_field(tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 9, {field}, column 8"):
        read(tmp_path, CAMPAIGN + f'{field}: "plan = and"\n')


def test_branches_may_be_nested_as_deep_as_the_file_allows(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        inner = EMAIL if depth == 0 else nested(depth - 1)
        return "{if: \"plan = 'a'\", then: [" + inner + "]}"

    assert len(read(tmp_path, CAMPAIGN + f"  - {nested(6)}\n").steps) == 9
    with pytest.raises(ConfigError, match="nested deeper than 20 levels"):
        read(tmp_path, CAMPAIGN + f"  - {nested(12)}\n")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("- email: hello", "- email: hi", "step 'hello' cannot be removed"),
        ("    subject: Hello\n", "    subject: Hello\n    at: 9:00\n", "at of step 'hello' cannot change"),
        ("exit: \"plan = 'paid'\"", "exit: \"plan = 'gone'\"", "its exit cannot change"),
        ("goal: \"plan = 'paid'\"\n", "", "its goal cannot change"),
    ],
)
def test_a_launched_journey_rejects_changes(project: CampaignProject, old: str, new: str, what: str) -> None:
    launched(project)
    project.apply(JOURNEY)  # Unchanged.
    assert old in JOURNEY
    with pytest.raises(StateError, match=what):
        project.apply(JOURNEY.replace(old, new))


def test_a_draft_may_become_a_journey_and_a_plain_campaign_again(project: CampaignProject) -> None:
    plain = CAMPAIGN
    assert project.apply(plain).journey is None
    assert project.apply(JOURNEY).journey is not None
    assert project.apply(plain).journey is None
