"""Templates: Jinja2 in its sandbox. A merge field that is missing is an error, never an empty space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, meta
from jinja2.exceptions import SecurityError

from postroad.errors import ConfigError, DataError
from postroad.mail.limits import LimitedEnvironment

RESERVED = frozenset({"address", "postal_address", "sender_name", "unsubscribe_url"})
"""Merge fields that Postroad itself fills in for every message."""

_TEXT = LimitedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
_HTML = LimitedEnvironment(undefined=StrictUndefined, autoescape=True, keep_trailing_newline=True)


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
        except Exception as error:
            # A template can raise anything (AttributeError, RecursionError), and it is the template's fault.
            raise DataError(f"the template fails: {error}", where=self._where(error)) from None

    def _where(self, error: BaseException) -> str:
        trace, line = error.__traceback__, None
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<template>":
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
    except Exception as error:
        # The compiler has limits too: RecursionError, or ValueError for a number of thousands of digits.
        raise ConfigError(f"the template cannot be compiled: {error}", where=name) from None
    template.globals = dict(template.globals)  # A third of a rendering is spent on copying what would be a ChainMap.
    return MessageTemplate(name=name, fields=frozenset(fields - environment.globals.keys()), template=template)
