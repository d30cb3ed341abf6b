"""The URLs of the console's pages."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def page_url(*path: object, **query: object) -> str:
    """Return the URL of a page.

    Args:
        path: Its parts. Each is quoted.
        query: Query parameters. None leaves one out.

    Returns:
        Path and query.
    """
    given = {name: str(value) for name, value in query.items() if value is not None}
    parts = "/".join(quote(str(part), safe="") for part in path)
    return f"/{parts}" + (f"?{urlencode(given)}" if given else "")
