"""``str.format`` in templates, charged to the budget of the rendering and with a maximum column width."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, cast

from jinja2 import pass_context
from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from markupsafe import Markup

from postroad.mail.budget import LimitedContext
from postroad.mail.vocabulary import require_format


class _LimitedFormatter(SandboxedFormatter):
    """A formatter that charges for every value and limits the width of every column."""

    def __init__(self, env: Any, context: LimitedContext, **options: Any) -> None:
        super().__init__(env, **options)
        self._context = context

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._context.read(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        self._context.read(value, format_spec, extra=require_format(format_spec))
        return cast(str, self._context.made(super().format_field(value, format_spec)))


class _LimitedEscapeFormatter(_LimitedFormatter, SandboxedEscapeFormatter):
    """A limited formatter that escapes values for HTML."""


def limited_format(environment: SandboxedEnvironment, value: Any) -> Callable[..., str]:
    """Return a limited replacement for the method ``format`` or ``format_map`` of a text."""
    pattern: str = value.__self__

    @pass_context
    def limited(context: LimitedContext, *args: Any, **kwargs: Any) -> str:
        if value.__name__ == "format_map":
            args, kwargs = (), dict(*args, **kwargs)
        context.read(pattern)
        if isinstance(pattern, Markup):
            formatter: _LimitedFormatter = _LimitedEscapeFormatter(environment, context, escape=pattern.escape)
        else:
            formatter = _LimitedFormatter(environment, context)
        return type(pattern)(formatter.vformat(pattern, args, kwargs))

    update_wrapper(limited, value)
    limited.limited_format = True  # type: ignore[attr-defined]
    return limited
