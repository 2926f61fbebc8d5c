"""Tidying what was found: causes that explain nothing of their own go, halves are joined, each is said once. Pure."""

from __future__ import annotations

from checks.diagnosis.causes import UNANSWERED, Cause, at, isolated
from checks.diagnosis.components import STRONG
from checks.diagnosis.solve import Chosen
from checks.diagnosis.states import ME_SERVICE, REFUSED, is_backend_failure

# A Service with dead and live endpoints lets some requests of every node pass.
PARTIAL = 0.75


def tidy(chosen: list[Chosen]) -> list[Chosen]:
    """Return the causes to name."""
    chosen = _join_directions(chosen)
    chosen = _join_pairs(chosen)
    for each in chosen:
        each.cause = _directed(each)
    return _restore_routing(_exchange_routing(chosen))


def _join(first: Chosen, second: Chosen, cause: Cause) -> Chosen:
    return Chosen(
        cause=cause,
        failures=first.failures + second.failures,
        gain=first.gain + second.gain,
        rate=min(first.rate, second.rate),
        passed=first.passed + second.passed,
        margin=min(first.margin, second.margin),
    )


def _join_directions(chosen: list[Chosen]) -> list[Chosen]:
    """Make one cause of a node that is cut off in both directions."""
    found = {each.cause: each for each in chosen}
    for cause in list(found):
        if cause.name != "isolated" or cause != isolated(cause.node, "in"):
            continue
        out = found.get(isolated(cause.node, "out"))
        if out is not None:
            both = _join(found.pop(cause), found.pop(out.cause), isolated(cause.node, "both"))
            found[both.cause] = both
    return list(found.values())


def _join_pairs(chosen: list[Chosen]) -> list[Chosen]:
    """Make one cause of a pair that fails in both directions."""
    found = {each.cause: each for each in chosen}
    for cause in list(found):
        where = dict(cause.where)
        if cause not in found or cause.name != "path":
            continue
        back = Cause(cause.name, (("from", where["to"]), ("to", where["from"])))
        if back not in found:
            continue
        first, second = sorted((where["from"], where["to"]))
        joined = Cause("path", (("from", first), ("to", second), ("both", "true")))
        found[joined] = _join(found.pop(cause), found.pop(back), joined)
    return list(found.values())


def _directed(chosen: Chosen) -> Cause:
    """Name a pair that loses large packets from the node that saw it to the other one, in order when both did."""
    where = dict(chosen.cause.where)
    if chosen.cause.name != "mtu" or "from" not in where:
        return chosen.cause
    paths = [each for each in chosen.failures if each.is_path]
    sources = {each.node for each in [each for each in paths if not each.explored] or paths}
    if sources == {where["to"]}:
        return Cause("mtu", (("from", where["to"]), ("to", where["from"])))
    return chosen.cause


def _exchange_routing(chosen: list[Chosen]) -> list[Chosen]:
    """Exchange broken routing and a broken ingress for a broken API server and Service without backends.

    Routing does not explain an ingress that cannot reach its backends, so two causes are needed in any case; the
    Service's explains all that the ingress says.
    """
    names = {each.cause: each for each in chosen}
    routing, ingress = names.get(at("service_routing")), names.get(at("ingress"))
    if routing is None or ingress is None:
        return chosen
    if not all(is_backend_failure(each.state, each.phase) for each in ingress.failures):
        return chosen
    service = [each for each in routing.failures if each.kind == ME_SERVICE]
    rest = [each for each in routing.failures if each.kind != ME_SERVICE]
    if not service or not rest or routing.rate < STRONG:
        return chosen
    kept = [each for each in chosen if each not in (routing, ingress)]
    api = Chosen(at("api_server"), rest, routing.gain / 2, routing.rate, 0.0, routing.margin)
    backends = Chosen(at("service_backends"), service + ingress.failures, ingress.gain, ingress.rate, 0.0, 1.0)
    return [*kept, api, backends]


def _restore_routing(chosen: list[Chosen]) -> list[Chosen]:
    """Name broken routing where the API server's checks and the Service's get no answer, on one node.

    A Service without endpoints refuses connections everywhere, one with some dead endpoints lets requests pass; on
    that node nothing answers at all.
    """
    names = {each.cause: each for each in chosen}
    backends = names.get(at("service_backends"))
    if backends is None:
        return chosen
    service = [each for each in backends.failures if each.kind == ME_SERVICE]
    refused = sum(each.failed for each in service if each.manner == REFUSED)
    answers = 2 * refused > sum(each.failed for each in service) or backends.rate < PARTIAL
    for each in chosen:
        node = each.cause.node
        if each.cause != at("api_server", node=node) or any(it.manner not in UNANSWERED for it in each.failures):
            continue
        there = [it for it in service if it.node == node and it.manner in UNANSWERED and not it.ok]
        if there and answers:
            each.cause = at("service_routing", node=node)
            each.failures.extend(there)
    return chosen
