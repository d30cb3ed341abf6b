"""The pages that a person sees: plain HTML without a script, the same for a phone and for a screen reader."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from postroad.web.words import Notice, choose_language, read_words


class Pages:
    """Makes pages from the template and the words that are shipped."""

    def __init__(self) -> None:
        folder = files("postroad.web")
        self._style = (folder / "page.css").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        self._template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
        self._book = read_words()
        digest = b64encode(sha256(self._style.encode()).digest()).decode()
        # Nothing is loaded, nothing runs, nobody frames it, and its form goes nowhere else.
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )

    def answer(
        self, request: Request, notice: Notice, status: int, headers: dict[str, str] | None = None
    ) -> HTMLResponse:
        """Return the page of a notice, in the language that the request asks for."""
        language = choose_language(request.headers.get("accept-language", ""), self._book)
        html = self._template.render(
            language=language,
            words=self._book[language][notice],
            style=Markup(self._style),  # noqa: S704  (our own file)
        )
        fixed = {
            "Content-Language": language,
            "Content-Security-Policy": self._policy,
            "Vary": "Accept-Language",
        }
        return HTMLResponse(html, status, {**fixed, **(headers or {})})
