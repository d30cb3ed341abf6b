"""postroad init: a folder with settings and examples, for `postroad up` and `postroad demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from postroad.cli.output import JsonOption, print_json, print_line, print_text
from postroad.local.new_project import write_project

_CONTENT = """
postroad.toml      settings: senders, routes and limits
examples/welcome   a campaign of two emails to 1,000 made-up people
examples/trial     a journey, for `postroad demo trial`
.gitignore         keeps the state folder .postroad out of git

Next:"""


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make, such as my-mail. One that exists must be empty.")],
    as_json: JsonOption = False,
) -> None:
    """Make a project: a folder with settings and two example campaigns. None of its mail leaves this machine.

    The senders in its postroad.toml send to the sandbox, a mail provider on this machine. The flows are part of
    Postroad and are not copied. In the folder, `postroad up` starts everything and prints a link to the console, whose
    page Launch sends the example `welcome`. `postroad demo` plays that example once and stops.

    Your own campaigns are files campaigns/NAME/campaign.yaml, which `postroad up` applies. To send real mail, add a
    route to postroad.toml, and name it in a sender.

    The folder appears when it is complete. Only its owner can read the files. A file that exists is never changed.
    """
    files = write_project(folder)
    enter = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if as_json:
        print_json({"folder": str(folder.resolve()), "files": files, "next": [*enter, "postroad up"]})
        return
    print_line(f"{folder} is a project, whose mail goes to the sandbox on this machine:")
    print_text(_CONTENT)
    for command in (*enter, "postroad up      # or `postroad demo`"):
        print_line(f"  {command}")
