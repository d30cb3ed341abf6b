"""What a person does in the console, a program does by the API: the same function, role and name in the audit log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from inspect import isfunction, ismodule
from types import CodeType
from typing import Any

import pytest

from postroad.api.access import ApiRoute
from postroad.api.app import ROUTERS
from postroad.app import campaign_acts
from postroad.app.gate_acts import resume_gate
from postroad.app.proof import send_proofs
from postroad.app.rollouts import widen
from postroad.app.suppressions import add_suppressions, lift_suppressions
from postroad.app.undecided import decide
from postroad.app.warmup import override_caps
from postroad.app.webhook_dead import resend_dead
from postroad.app.webhooks import redeliver, replay_events, send_test, set_enabled
from postroad.console.registry import SCREENS
from postroad.console.screen import ScreenRoute
from postroad.local.approval_runs import approve_and_resume, refuse_and_resume
from postroad.local.campaign_launch import start_launch
from postroad.operations.touches import cancel_touches, reschedule_touches

Function = Callable[..., Any]

BOTH: dict[str, tuple[str, Function]] = {
    "/campaigns/{campaign}/pause": ("pauseCampaign", campaign_acts.pause),
    "/campaigns/{campaign}/resume": ("resumeCampaign", campaign_acts.resume),
    "/campaigns/{campaign}/close": ("closeCampaign", campaign_acts.close),
    "/campaigns/{campaign}/recall": ("recallCampaign", campaign_acts.recall_campaign),
    "/campaigns/{campaign}/widen": ("widenCampaign", widen),
    "/launch/{campaign}/proof": ("sendProof", send_proofs),
    "/launch/{campaign}/start": ("launchCampaign", start_launch),
    "/launch/{campaign}/approve": ("approveLaunch", approve_and_resume),
    "/launch/{campaign}/refuse": ("refuseLaunch", refuse_and_resume),
    "/messages/{touch}/cancel": ("cancelMessage", cancel_touches),
    "/messages/{touch}/reschedule": ("rescheduleMessage", reschedule_touches),
    "/messages/{undecided}/decide": ("decideMessages", decide),
    "/people/suppressions/add": ("addSuppressions", add_suppressions),
    "/people/suppressions/lift": ("liftSuppressions", lift_suppressions),
    "/receivers/undo": ("resumeGate", resume_gate),
    "/undecided/decide": ("decideMessages", decide),
    "/warmup/override": ("setWarmupCap", override_caps),
    "/webhooks/{endpoint}/disable": ("disableWebhook", set_enabled),
    "/webhooks/{endpoint}/enable": ("enableWebhook", set_enabled),
    "/webhooks/{endpoint}/redeliver": ("redeliverEvents", redeliver),
    "/webhooks/{endpoint}/replay": ("replayWebhook", replay_events),
    "/webhooks/{endpoint}/resend": ("resendDeadEvents", resend_dead),
    "/webhooks/{endpoint}/test": ("testWebhook", send_test),
}
"""Acts of the console with the operation of the API that does the same, and the function that both call."""

CONSOLE_ALONE = {
    "/access/keys/{key}/revoke": "as `postroad api-key revoke`: a key must not end another",
    "/access/sessions/{session_id}/end": "sessions belong to people who sign in; `postroad api-key revoke` ends a key",
    "/access/users/{name}/remove": "as `postroad console user remove`: a key must not decide who signs in",
    "/now/check": "renews the findings of the page; a program reads metrics",
    "/sign-in": "a key needs no session",
    "/sign-in/link": "a key needs no session",
    "/sign-out": "a key needs no session",
    "/theme": "the colours of a browser",
}
"""Acts that only a person has, and why."""

API_ALONE = {
    "addMembers": "postroad audience import",
    "applyCampaign": "postroad campaign apply",
    "cancelCampaign": "postroad campaign cancel",
    "pauseGate": "postroad queue gate pause",
    "preflightCampaign": "postroad campaign launch --dry-run",
    "putRecipient": "postroad audience import",
    "recordConsents": "postroad permission record",
    "recordEvents": "postroad event record",
    "replayDead": "postroad queue replay",
    "resolveUnknown": "postroad unknown resolve",
    "sendMessage": "a program alone requests single messages",
}
"""Operations that change something and that the console does not have, with the command that does the same."""

OTHER_ROLES = {
    "/people/suppressions/add": "a program that sends must be able to say who wants no mail",
}
"""Acts for which a program needs another role than a person, and why."""

_ACTION = re.compile(r"(?!.*\.html$)[a-z]+\.([a-z]+(-[a-z]+)*)?")
"""Name of an act in the audit log, or its beginning."""


def console_acts() -> dict[str, ScreenRoute]:
    return {route.path: route for screen in SCREENS for route in screen.routes if route.method == "POST"}


def api_acts() -> dict[str, ApiRoute]:
    """The operations that may change something, by their ids."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, ApiRoute)]
    return {str(route.operation_id): route for route in routes if route.methods != {"GET"}}


def test_every_act_is_in_one_table() -> None:
    assert console_acts().keys() == BOTH.keys() | CONSOLE_ALONE.keys()
    assert not BOTH.keys() & CONSOLE_ALONE.keys()
    shared = {operation for operation, _ in BOTH.values()}
    assert api_acts().keys() == shared | API_ALONE.keys()
    assert not shared & API_ALONE.keys()


@pytest.mark.parametrize("path", BOTH)
def test_page_and_operation_call_the_same_function(path: str) -> None:
    operation, function = BOTH[path]
    page, route = console_acts()[path], api_acts()[operation]
    assert function in called(page.endpoint), path
    assert function in called(route.endpoint), operation


@pytest.mark.parametrize("path", BOTH)
def test_page_and_operation_need_the_same_role(path: str) -> None:
    is_same = console_acts()[path].role is api_acts()[BOTH[path][0]].needed_scope
    assert is_same is (path not in OTHER_ROLES)


@pytest.mark.parametrize("path", BOTH)
def test_page_and_operation_have_one_name_in_the_audit_log(path: str) -> None:
    assert actions(console_acts()[path].endpoint) & actions(api_acts()[BOTH[path][0]].endpoint)


def actions(endpoint: Function) -> set[str]:
    """Names of acts that an endpoint has, or a function of its package that it calls."""
    functions = [unwrapped(endpoint), *(value for value in called(endpoint) if is_of(value, package_of(endpoint)))]
    return {text for each in functions for text in texts(each.__code__) if _ACTION.fullmatch(text)}


def unwrapped(function: Any) -> Any:
    return getattr(function, "__wrapped__", function)


def package_of(function: Function) -> str:
    """The console or the API."""
    return ".".join(function.__module__.split(".")[:2])


def is_of(function: Function, package: str) -> bool:
    return function.__module__.startswith(f"{package}.")


def called(endpoint: Function) -> set[Function]:
    """Every function that an endpoint names, also by other functions of its package."""
    found: set[Function] = set()
    left = [unwrapped(endpoint)]
    while left:
        for value in named(left.pop()):
            if value not in found:
                found.add(value)
                if is_of(value, package_of(endpoint)):
                    left.append(value)
    return found


def named(function: Any) -> Iterator[Any]:
    """Functions that the code of a function names, itself or as a part of a module."""
    names = {name for code in codes(function.__code__) for name in code.co_names}
    for name in names:
        value = function.__globals__.get(name)
        parts = [getattr(value, part, None) for part in names] if ismodule(value) else [value]
        yield from (part for part in parts if isfunction(part))


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def texts(code: CodeType) -> Iterator[str]:
    for part in codes(code):
        yield from (constant for constant in part.co_consts if isinstance(constant, str))
