"""Jinja2's sandbox, with an end to what a template can use up.

The sandbox keeps templates from what they may not touch; it does not keep one from looping in loops, or from asking
for 9 ** (9 ** 9). A worker merges between two sends, so a template that is busy for ever would hold up all mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 100_000
"""Turns of loops, and calls, in one rendering; a fraction of a second."""
MAX_LENGTH = 1_000_000
"""Of a text or list that an operator makes."""
MAX_BITS = 10_000
"""Of a whole number that an operator makes."""

_COUNTED = "counted loop"  # no name that a template could write


class LimitedContext(Context):
    """A rendering, and how many steps are left of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = [MAX_STEPS]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002  (Jinja's name)
        context = super().derived(locals)
        cast(LimitedContext, context)._left = self._left
        return context

    def step(self) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise OverflowError(f"it takes more than {MAX_STEPS:,} steps of loops and calls")

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.step()
            yield item


@pass_context
def _counted(context: LimitedContext, items: Iterable[Any]) -> Iterator[Any]:
    return context.counted(items)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Templates of it raise OverflowError when they go beyond the limits."""

    context_class = LimitedContext
    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters[_COUNTED] = _counted

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.iter.lineno)
        return template

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  (as Jinja's own)
        context = cast(LimitedContext, __context)
        context.step()
        if isinstance(__obj, LoopContext) and args:  # a recursive loop
            args = (context.counted(args[0]), *args[1:])
        return super().call(context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = {"+": 0, "*": left.bit_length() + right.bit_length(), "**": left.bit_length() * right}[operator]
            if bits > MAX_BITS:
                raise OverflowError(f"a number of more than {MAX_BITS:,} bits")
        elif _length(operator, left, right) > MAX_LENGTH:
            raise OverflowError(f"a text or list longer than {MAX_LENGTH:,}")
        return super().call_binop(context, operator, left, right)


def _length(operator: str, left: Any, right: Any) -> int:
    """How long what an operator makes of texts and lists will be."""
    if operator == "+":
        return len(left) + len(right) if hasattr(left, "__len__") and hasattr(right, "__len__") else 0
    sized, times = (right, left) if isinstance(left, int) else (left, right)
    return len(sized) * times if hasattr(sized, "__len__") and isinstance(times, int) else 0
