"""Checks the tokens of a template before it is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

from postroad.errors import ConfigError
from postroad.mail.names import own_word_error

MAX_TOKENS: Final = 10_000
"""Maximum number of tokens of a template: names, operators, brackets. ``{{ name }}`` has three."""

_BEGIN_OPERANDS: Final = frozenset({"name", "string", "integer", "float", "lparen", "lbracket", "lbrace", "sub", "add"})


class LimitedTokens(Extension):
    """Rejects a template that has too many tokens, or the operator ``not`` where a value is expected."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        last: Token | None = None
        for count, token in enumerate(stream, start=1):
            if count > MAX_TOKENS:
                raise ConfigError(
                    f"the template has more than {MAX_TOKENS:,} names, operators and brackets",
                    where=f"line {token.lineno}",
                    remedy="Write what is the same for every recipient as text.",
                )
            attribute = last is not None and last.type == "dot"
            if token.test("name:not") and not attribute and stream.current.type not in _BEGIN_OPERANDS:
                raise own_word_error("not", "is an operator", token.lineno)
            last = token
            yield token
