"""Templates: Jinja2 in its sandbox. A merge field that is missing is an error, never an empty space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from postroad.errors import ConfigError, DataError

RESERVED = frozenset({"address", "postal_address", "sender_name", "unsubscribe_url"})
"""Merge fields that Postroad itself fills in for every message."""

_TEXT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
_HTML = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=True, keep_trailing_newline=True)


@dataclass(frozen=True, kw_only=True)
class MessageTemplate:
    """One compiled template, and the merge fields it names."""

    name: str
    fields: frozenset[str]
    template: Template

    def render(self, fields: dict[str, Any]) -> str:
        """Raises DataError, which names the template, the line and the field."""
        try:
            return self.template.render(fields)
        except UndefinedError as error:
            raise DataError(str(error.message), where=self._where(error)) from None
        except SecurityError as error:
            raise DataError(f"the template does what templates may not: {error}", where=self._where(error)) from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"the template fails: {error}", where=self._where(error)) from None

    def _where(self, error: BaseException) -> str:
        trace, line = error.__traceback__, None
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<template>":
                line = self.template.get_corresponding_lineno(trace.tb_lineno)
            elif trace.tb_frame.f_code.co_name == "top-level template code":
                line = trace.tb_lineno  # Jinja has rewritten the traceback to the template's own lines.
            trace = trace.tb_next
        return f"{self.name}, line {line}" if line else self.name


def compile_template(source: str, *, name: str, html: bool = False) -> MessageTemplate:
    """Compile a template; in HTML, what merge fields hold is escaped. Raises ConfigError with file and line."""
    environment = _HTML if html else _TEXT
    try:
        fields = meta.find_undeclared_variables(environment.parse(source))
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(str(error.message), where=f"{name}, line {error.lineno}") from None
    except TemplateError as error:
        raise ConfigError(str(error), where=name) from None
    return MessageTemplate(name=name, fields=frozenset(fields - environment.globals.keys()), template=template)
