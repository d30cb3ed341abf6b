"""Renders the HTML pages: no scripts, suitable for phones and screen readers."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from postroad.web.translations import Notice, choose_language, read_translations


class Pages:
    """Renders pages from the template and its translations."""

    def __init__(self) -> None:
        folder = files("postroad.web")
        self._style = (folder / "page.css").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        self._template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
        self._translations = read_translations()
        digest = b64encode(sha256(self._style.encode()).digest()).decode()
        # No external resources, no scripts, no frames, and forms only to the same origin.
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )

    def render(
        self, request: Request, notice: Notice, status: int, headers: dict[str, str] | None = None
    ) -> HTMLResponse:
        """Return the page of a notice, in the language that the request asks for."""
        language = choose_language(request.headers.get("accept-language", ""), self._translations)
        html = self._template.render(
            language=language,
            words=self._translations[language][notice],
            style=Markup(self._style),  # noqa: S704  (our own file)
        )
        fixed = {
            "Content-Language": language,
            "Content-Security-Policy": self._policy,
            "Vary": "Accept-Language",
        }
        return HTMLResponse(html, status, {**fixed, **(headers or {})})
