"""Why a request goes where it goes: asked of the same matcher that the workers match with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anumate.lib.problem import Problem
from gateway.control.compile import compile_table
from gateway.proxy.paths import read_path
from gateway.proxy.router import Explained, Router
from gateway.proxy.table import Target


class Explanation(NamedTuple):
    """`verdicts` has a line for every route of the tenant, in order of precedence."""

    tenant: str
    route: str | None
    sentence: str
    upstream_path: str | None
    targets: tuple[Target, ...]
    verdicts: list[Explained]
    skipped: list[str]


def explain(
    tenant: str, *, method: str, host: str, target: str, headers: Sequence[tuple[str, str]] = ()
) -> Explanation:
    """What would become of a request. `target` is path and query, as on the request line.

    Raises:
        Problem: malformed_request, when the gateway would not read such a path.
    """
    compiled = compile_table(0)
    router = Router(compiled.table)
    raw, _, query = target.encode().partition(b"?")
    path = read_path(raw)
    host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    request = (
        tenant,
        host.lower(),
        method,
        path.matched,
        [(name.lower().encode(), value.encode()) for name, value in headers],
        query,
    )
    skipped = [str(each) for each in compiled.skipped if each.tenant == tenant]
    verdicts = router.explain(*request)
    try:
        rule = router.match(*request)
    except Problem as problem:
        return Explanation(tenant, None, problem.detail, None, (), verdicts, skipped)
    sentence = next(verdict.sentence for verdict in verdicts if verdict.takes_it)
    return Explanation(
        tenant, rule.route.name, sentence, rule.rewriting.path(path), rule.route.targets, verdicts, skipped
    )
