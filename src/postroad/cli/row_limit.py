"""The option that limits the rows of a list. It imports nothing of the product, so that every command may have it."""

from __future__ import annotations

from typing import Annotated

import typer

MAX_NUMBER = 1_000_000_000
"""Of what is counted on the command line: rows, jobs, messages. It fits into every database and server."""

LimitOption = Annotated[int, typer.Option(help="Maximum number of rows.", min=1, max=MAX_NUMBER)]
