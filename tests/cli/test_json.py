"""Every command can be asked for JSON, and so can its errors."""

from __future__ import annotations

from tests.cli.enumerate import commands

WITHOUT = {
    "worker": "runs until it is stopped, and logs",
    "recorder": "runs until it is stopped, and logs",
    "inbound": "runs until it is stopped, and logs",
    "web": "runs until it is stopped, and logs",
    "bounce watch": "runs until it is stopped, and logs",
    "up": "runs until it is stopped",
}
"""Commands that print no JSON, and why."""


def test_every_command_prints_json_where_it_ends() -> None:
    without = {words for words, command in commands().items() if not any("--json" in p.opts for p in command.params)}
    assert without == WITHOUT.keys()
