"""Every function of the source that begins a transaction that writes.

One that no operation of `benchmarks.bounded_ledger` reaches has to say in `ROWS_OF_THE_CALLER` why its work is bounded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROWS_OF_THE_CALLER = {
    "postroad.bounce.process:process": "mails of one claim",
    "postroad.bounce.intake:Intake._keep": "one mail",
    "postroad.bounce.report_mail:keep_reports": "rows of one report, a hundred at a time",
    "postroad.bounce.report_mail:forget_reports": "reports, a thousand rows at a time",
    "postroad.cli.console:add_user.<locals>.work.<locals>.save": "one user",
    "postroad.cli.console:remove.<locals>.work.<locals>.removed": "one user",
    "postroad.console.authorise:_Session.find": "one session",
    "postroad.console.links:make_sign_in_link": "one link",
    "postroad.console.screens.access:end.<locals>.ended": "one session",
    "postroad.console.screens.access:remove.<locals>.removed": "one user, and the user's sessions",
    "postroad.console.screens.access:revoke.<locals>.revoked": "one key",
    "postroad.console.screens.sign_in:_begin_by_password": "one session, and a thousand expired ones",
    "postroad.console.screens.sign_in:_use_link": "one session, and a thousand expired ones",
    "postroad.console.screens.sign_in:finish_oidc.<locals>.begin": "one session, and a thousand expired ones",
    "postroad.console.screens.sign_in:sign_out.<locals>.end": "one session",
    "postroad.store.attachment_retention:_forget_files": "a thousand requests, which were chosen before",
    "postroad.store.attachment_retention:_delete_files": "a hundred files, which were chosen before",
    "postroad.store.audit:save_act": "one record",
    "postroad.campaign.audience:abandon_imports": "imports of one audience",
    "postroad.senders.rollout:_open_if_not_paused": "one share",
    "postroad.senders.cohort_breaker:evaluate": "pauses of one step's cohorts, evaluated before",
    "postroad.senders.cohort_breaker:lift.<locals>.write_lift": "one pause",
    "postroad.app.advance:record_pass": "one heartbeat",
    "postroad.api.routes.recipients:record_events_.<locals>.save": "at most five thousand events of one call",
    "postroad.app.api_keys:authenticate": "one key",
    "postroad.canary.probe:_save": "one report, and the oldest one of its sender",
    "postroad.app.consents:record_given": "at most a thousand consents, as an import writes them",
    "postroad.app.message_desk:MessageDesk._insert": "one message",
    "postroad.app.recipients:add_members": "at most a thousand members, as an import writes them",
    "postroad.app.recipients:put_recipient": "one recipient",
    "postroad.app.touch_submitter:TouchSubmitter._mark_queued": "at most a thousand touches, as a submission",
    "postroad.cli.api_key:create.<locals>.work.<locals>.make": "one key",
    "postroad.cli.api_key:revoke.<locals>.work.<locals>.end": "one key",
    "postroad.app.approval:_request": "one request",
    "postroad.app.approval:approve.<locals>.decide": "one request",
    "postroad.app.approval:refuse.<locals>.decide": "one request",
    "postroad.app.approval:withdraw.<locals>.write_withdrawal": "one request",
    "postroad.operations.campaign_runs:begin_run.<locals>.write_begin": "one run",
    "postroad.campaign.apply_running:extend_follow_ups": "a page of touches",
    "postroad.campaign.status:reopen_late": "campaigns with a late outcome",
    "postroad.operations.gate_pauses:pause_gate.<locals>.record": "one pause",
    "postroad.operations.gate_pauses:record_resume": "one pause",
    "postroad.campaign.plan:launch": "one campaign, of which an earlier launch failed",
    "postroad.operations.campaign_runs:end_runs": "runs that ended",
    "postroad.operations.campaign_runs:stop_run.<locals>.write_stop": "one run",
    "postroad.operations.campaigns:pause.<locals>.write_pause": "one campaign",
    "postroad.operations.campaigns:resume.<locals>.write_resume": "one campaign",
    "tasks.campaign:record_failure.<locals>.write_failure": "one campaign",
    "postroad.operations.touches:_write": "touches that a person names",
    "postroad.senders.dns_health:record": "one sender's report",
    "postroad.senders.dns_health:close_stale_holds": "senders",
    "postroad.senders.mail_reports:save": "rows of one report",
    "postroad.operations.unknown:_resolve": "one touch",
    "postroad.operations.dead_letters:_drop": "five hundred touches",
    "postroad.shaping.shaper:Shaper._save": "one reply",
    "postroad.gates.controller:GateController._apply_locked": "one gate",
    "postroad.shaping.shaper:resume.<locals>.close": "one change",
    "postroad.delivery.provider_lookup:Providers._store": "domains of one submission",
    "postroad.delivery.sts_policies:StsPolicies._save": "one domain",
    "postroad.rehearsal.environment:RehearsalEnvironment.store_providers": "a database of its own",
    "postroad.rehearsal.trial:_Trial._happen": "a database of its own",
    "postroad.store.migrate:_upgrading": "no mail flows",
    "postroad.store.suppression:lift": "addresses that a person names",
    "postroad.warmup.day:set_cap": "one cap",
    "postroad.warmup.overflow:_move_in_steps": "a thousand touches, which were chosen before",
    "postroad.warmup.reputation:import_file": "days of one file",
    "postroad.warmup.seeds:plan_seeds": "one seed list",
    "postroad.app.webhook_dead:resend_dead.<locals>.open_again": "at most five hundred events, chosen before",
    "postroad.app.webhooks:send_test.<locals>.keep": "one attempt",
    "postroad.app.webhooks:redeliver.<locals>.insert": "events that a person names",
    "postroad.app.webhooks:replay_events.<locals>.rewind": "one cursor",
    "postroad.app.webhooks:set_enabled.<locals>.change": "one endpoint",
    "tasks.cohorts:_mark": "pauses that were announced",
    "tasks.maintain:_fold_counts": "connections that ended",
}


def write_sites(source: Path) -> set[str]:
    """Return module and qualified name of each function in `source` that begins a transaction that writes."""
    return {
        site for top in ("src", "tasks") for path in (source / top).rglob("*.py") for site in _sites_in(path, source)
    }


def _sites_in(path: Path, source: Path) -> Iterator[str]:
    parts = path.relative_to(source).with_suffix("").parts
    module = ".".join(parts[1:] if parts[0] == "src" else parts)
    if module == "postroad.store.engine":
        return

    def visit(node: ast.AST, names: tuple[str, ...], in_function: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            called = child.func.id if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) else ""
            if called in {"write", "write_connection"}:
                yield f"{module}:{'.'.join(names)}"
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = (*names, "<locals>", child.name) if in_function else (*names, child.name)
                yield from visit(child, inner, not isinstance(child, ast.ClassDef))
            else:
                yield from visit(child, names, in_function)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), (), False)
