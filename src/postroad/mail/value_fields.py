"""Finds merge fields whose value determines whether a rendering fails. Other fields only have to be present.

``{{ name }}`` and ``{{ name|upper }}`` succeed for every text, unless it is very long. ``{{ name.split(' ')[1] }}``
fails for "Cher".
"""

from __future__ import annotations

from collections.abc import Iterable

from jinja2 import nodes

from postroad.mail.vocabulary import words

_TOTAL_FILTERS = words(
    "capitalize count d default e escape forceescape length lower safe string striptags title trim upper urlencode"
)


def value_fields(template: nodes.Template) -> frozenset[str]:
    """Return the names of a parsed template with a use other than being written or tested for presence.

    Args:
        template: The parsed template.

    Returns:
        The names. Variables of the template are among them.
    """
    harmless: set[int] = set()
    for node in _body(template.body):
        match node:
            case nodes.Output():
                for expression in node.nodes:
                    _mark_shown(expression, harmless)
            case nodes.If(test=test):
                _mark_asked(test, harmless)
    names = (name for name in template.find_all(nodes.Name) if name.ctx == "load" and id(name) not in harmless)
    return frozenset(name.name for name in names)


def _body(statements: Iterable[nodes.Node]) -> Iterable[nodes.Node]:
    """Yield the statements that write to the message. Those that make a value (macros, blocks, `set`) are omitted."""
    for statement in statements:
        yield statement
        match statement:
            case nodes.If(body=body, elif_=elif_, else_=else_):
                yield from _body([*body, *elif_, *else_])
            case nodes.For(body=body, else_=else_):
                yield from _body([*body, *else_])
            case nodes.With(body=body) | nodes.ScopedEvalContextModifier(body=body):
                yield from _body(body)


def _mark_shown(expression: nodes.Expr | None, harmless: set[int]) -> None:
    match expression:
        case nodes.Name():
            harmless.add(id(expression))
        case nodes.Filter(node=node, name=name, args=args, kwargs=kwargs) if name in _TOTAL_FILTERS:
            if not kwargs and all(isinstance(arg, nodes.Const) for arg in args):
                _mark_shown(node, harmless)
        case nodes.Concat(nodes=parts):
            for part in parts:
                _mark_shown(part, harmless)
        case nodes.CondExpr(test=test, expr1=first, expr2=second):
            _mark_asked(test, harmless)
            _mark_shown(first, harmless)
            _mark_shown(second, harmless)


def _mark_asked(test: nodes.Node, harmless: set[int]) -> None:
    """Mark names in a condition that depends on their presence only: merge fields are never empty texts."""
    match test:
        case nodes.Name():
            harmless.add(id(test))
        case nodes.Test(node=nodes.Name() as name, name="defined" | "undefined"):
            harmless.add(id(name))
        case nodes.Not(node=node):
            _mark_asked(node, harmless)
        case nodes.And(left=left, right=right) | nodes.Or(left=left, right=right):
            _mark_asked(left, harmless)
            _mark_asked(right, harmless)
