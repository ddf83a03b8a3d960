"""What the doctor's observations mean for an upload: pure, one function a line."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from moe_bulk.amounts import duration
from moe_bulk.config import DEFAULT_IN_FLIGHT, FILES_KEPT_FREE
from moe_bulk.doctor.findings import Finding, Worth
from moe_bulk.outcome import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moe_bulk.doctor.findings import Certificate, PaceServer, Plan, Reached, StateFolder, Tried
    from moe_bulk.outcome import Outcome

ENDS_SOON = 14 * 86400.0
"""Seconds: certificates are usually renewed a month before they end."""

CLOCK_OFF = 5.0
"""Seconds that the machine's clock may be off: dates in answers say when to come back, in whole seconds."""

DATE_IS_WHOLE = 0.5
"""A Date header leaves out the fraction of its second: its moment is half a second later, give or take as much."""

SLOW_PACE = 0.25
"""Seconds: half of what an upload holds in slots."""

_OK, _WARN, _FAIL = Worth.OK, Worth.WARN, Worth.FAIL
_UNTRUSTED = frozenset({"certificate refused", "TLS failure"})


def judge_name(plan: Plan, addresses: Sequence[str], trouble: str = "") -> Finding:
    """Whether the host's name leads anywhere; a proxy's where there is one, which looks the host up itself."""
    host, _ = plan.first_stop
    whose = f"the proxy {host}" if plan.proxy else host
    figures: dict[str, object] = {"host": host, "addresses": list(addresses)}
    if trouble:
        remedy = "see that the data center or base URL is right, and that this machine's DNS works"
        if plan.proxy:
            remedy = "see that HTTPS_PROXY is right, and that this machine's DNS works"
        return Finding("name", _FAIL, f"{whose} is not found: {trouble}", f"{remedy} (getent hosts {host})", figures)
    if list(addresses) == [host]:
        return Finding("name", _OK, f"{whose} is an address, no name to look up", figures=figures)
    others = f" and {len(addresses) - 4} more" if len(addresses) > 4 else ""
    return Finding("name", _OK, f"{whose} is {', '.join(addresses[:4])}{others}", figures=figures)


def judge_network(plan: Plan, reached: Sequence[Reached]) -> Finding:
    """Whether connections can be made, by each of IPv4 and IPv6 that the host has."""
    host, port = plan.first_stop
    told = "; ".join(
        f"{each.family} connects in {_ms(each.seconds)}"
        if each.seconds is not None
        else f"{each.family} does not connect ({each.trouble})"
        for each in reached
    )
    figures: dict[str, object] = {
        each.family.lower(): {"address": each.address, "seconds": each.seconds, "trouble": each.trouble or None}
        for each in reached
    }
    if all(each.seconds is None for each in reached):
        way = f"let this machine connect to {host}, port {port}: a firewall may need a rule"
        proxy = "" if plan.proxy or not plan.encrypted else ", or HTTPS_PROXY has to name the proxy of your network"
        return Finding("network", _FAIL, told, way + proxy, figures)
    if any(each.seconds is None for each in reached):
        remedy = "each new connection may lose a quarter of a second: repair that way, or switch it off on this machine"
        return Finding("network", _WARN, told, remedy, figures)
    return Finding("network", _OK, told, figures=figures)


def judge_tls(plan: Plan, tried: Tried, certificate: Certificate | None, now: float) -> Finding | None:
    """Whether the server proves who it is, and for how long; None where that was not to be seen."""
    if not plan.encrypted:
        return Finding("TLS", _OK, f"not needed: plain http does not leave this machine ({plan.host})")
    if tried.outcome.error in _UNTRUSTED:
        remedy = (
            "a proxy that opens connections needs its own certificates in --ca-bundle; else see that the clock and "
            "the base URL are right. Verification cannot be switched off"
        )
        return Finding("TLS", _FAIL, tried.outcome.reason or "", remedy)
    if certificate is None:
        return None
    days = (certificate.ends - now) / 86400
    said = f"verified; the certificate (by {certificate.issuer}) holds for {days:,.0f} more days"
    figures = {"ends": certificate.ends, "issuer": certificate.issuer}
    if certificate.ends - now < ENDS_SOON:
        remedy = "whoever runs this host has to renew it before then; after that an upload stops as in an outage"
        return Finding("TLS", _WARN, said, remedy, figures)
    return Finding("TLS", _OK, said, figures=figures)


def judge_key(plan: Plan, tried: Tried) -> Finding:
    """Whether MoEngage knows the workspace and its key."""
    outcome = tried.outcome
    reason = outcome.reason or ""
    figures: dict[str, object] = {"http_status": outcome.http_status, "request_id": outcome.request_id}
    if outcome.verdict is Verdict.ACCEPTED:
        name = f": {tried.app_name}" if tried.app_name else ""
        said = f"MoEngage knows workspace {plan.workspace_id} and this key{name}"
        return Finding("key", _OK, said, figures={**figures, "app_name": tried.app_name})
    if outcome.verdict is Verdict.UNAUTHORIZED:
        remedy = (
            "copy workspace id and Data API key again from Settings > Account > APIs, and see that the data center is "
            "your dashboard's (dashboard-01 is 01)"
        )
        return Finding("key", _FAIL, f"refused for workspace {plan.workspace_id}: {reason}", remedy, figures)
    if outcome.verdict is Verdict.MISDIRECTED:
        return _misdirected(plan, tried, figures)
    if outcome.verdict in (Verdict.THROTTLED, Verdict.TROUBLE):
        return _not_judged(outcome, figures)
    remedy = "ask MoEngage's support what is wrong with the account, or whoever runs the firewall on the way"
    return Finding("key", _FAIL, f"refused: {reason}", remedy, figures)


def _not_judged(outcome: Outcome, figures: Mapping[str, object]) -> Finding:
    """Passing trouble, or a proxy that refuses."""
    reason = outcome.reason or ""
    if outcome.verdict is Verdict.THROTTLED:
        return Finding("key", _WARN, f"not judged: {reason}", "wait a minute and ask again", figures)
    if outcome.error == "proxy failure":
        remedy = "see that HTTPS_PROXY is right, with user and password, and that the proxy lets CONNECT through"
        return Finding("key", _FAIL, f"not judged: {reason}", remedy, figures)
    remedy = "ask again in a few minutes; an upload would wait for --outage-limit (30 min) and stop, resumable"
    return Finding("key", _FAIL, f"not judged, there is no usable answer: {reason}", remedy, figures)


def _misdirected(plan: Plan, tried: Tried, figures: Mapping[str, object]) -> Finding:
    """A host that is not the API; one that only passes devices on need not know Test connection."""
    status, reason = tried.outcome.http_status or 0, tried.outcome.reason or ""
    if status // 100 == 3 or plan.host.endswith(".moengage.com"):
        remedy = "set the data center in your dashboard's address (dashboard-01 is 01), or correct the base URL"
        return Finding("key", _FAIL, f"{plan.host} is not MoEngage's API: {reason}", remedy, figures)
    said = f"not judged: {plan.host} does not know Test connection ({reason})"
    remedy = f"try a few rows first: moe-bulk upload SOURCE --limit 10 (is {plan.host} MoEngage, or passes on to it?)"
    return Finding("key", _WARN, said, remedy, figures)


def judge_clock(tried: Sequence[Tried]) -> Finding:
    """How far this machine's clock is from the service's: told by the quickest of the answers that bear a date."""
    dated = [(each.seconds, each.started, each.date) for each in tried if each.date is not None]
    if not dated:
        said = "not compared: the answers bear no date"
        return Finding("clock", _WARN, said, "see that this machine's clock is set (timedatectl)")
    seconds, started, date = min(dated)
    off = started + seconds / 2 - (date + DATE_IS_WHOLE)
    doubt = seconds / 2 + DATE_IS_WHOLE
    figures = {"ahead_seconds": round(off, 3), "uncertainty_seconds": round(doubt, 3)}
    if abs(off) <= doubt:
        said = f"agrees with the service's, within {doubt:.1f} s"
        return Finding("clock", _OK, said, figures=figures)
    said = f"{abs(off):.1f} s ± {doubt:.1f} s {'ahead of' if off > 0 else 'behind'} the service's"
    if abs(off) - doubt > CLOCK_OFF:
        remedy = "set it (timedatectl set-ntp true): certificates, and when to come back after a 429, go by the clock"
        return Finding("clock", _WARN, said, remedy, figures)
    return Finding("clock", _OK, said, figures=figures)


def judge_latency(plan: Plan, tried: Sequence[Tried]) -> Finding:
    """How long answers take over a connection that is kept: median and worst."""
    first, kept = tried[0].seconds, [each.seconds for each in tried[1:]] or [tried[0].seconds]
    typical, worst = median(kept), max(kept)
    said = f"median {_ms(typical)}, worst {_ms(worst)} of {len(kept)}; the first, with its connection, {_ms(first)}"
    if len(tried) == 1:
        said = f"one answer, with its connection, after {_ms(first)}"
    figures = {"median_seconds": typical, "worst_seconds": worst, "first_seconds": first, "requests": len(tried)}
    if max(worst, first) > plan.timeout / 2:
        remedy = f"raise --timeout: above {plan.timeout:g} s a request counts as failed, and is sent again"
        return Finding("latency", _WARN, said, remedy, figures)
    return Finding("latency", _OK, said, figures=figures)


def judge_limits(plan: Plan, tried: Sequence[Tried]) -> Finding:
    """Which headers told of limits."""
    told: dict[str, str] = {}
    for each in tried:
        told |= each.limits
    figures: dict[str, object] = {"headers": told}
    if not told:
        said = f"no header tells of one: --rate {plan.rate} is what holds"
        return Finding("limit", _OK, said, figures=figures)
    said = ", ".join(f"{name}: {value}" for name, value in told.items())
    limit = told.get("x-ratelimit-limit", "").strip()
    if limit.isascii() and limit.isdigit() and len(limit) < 19 and int(limit) < plan.rate.limit:
        remedy = f"ask MoEngage what this workspace's limit for devices is, and say it with --rate (now {plan.rate})"
        return Finding("limit", _WARN, said, remedy, figures)
    return Finding("limit", _OK, said, figures=figures)


def judge_in_flight(plan: Plan, tried: Sequence[Tried]) -> Finding | None:
    """Whether as many requests may be on their way as the rate needs: rate times latency, Little's law.

    None where the limit of open files allows no such number: that is told by itself.
    """
    if isinstance(plan.in_flight, str):
        return None
    kept = [each.seconds for each in tried[1:]] or [tried[0].seconds]
    needed, at_worst = (max(1, math.ceil(plan.rate.per_second * seconds)) for seconds in (median(kept), max(kept)))
    figures: dict[str, object] = {"needed": needed, "needed_at_worst": at_worst, "allowed": plan.in_flight}
    worst = f" ({at_worst:,} at the worst latency)" if at_worst > needed else ""
    said = f"{plan.rate} at the median latency needs {needed:,} at once{worst}; up to {plan.in_flight:,} are allowed"
    if needed > plan.in_flight:
        reached = math.floor(plan.in_flight / median(kept) * plan.rate.per)
        said += f", which carry {reached:,} in {plan.rate.per:g} s"
        return Finding("in flight", _WARN, said, _more_in_flight(plan, at_worst), figures)
    return Finding("in flight", _OK, said, figures=figures)


def _more_in_flight(plan: Plan, needed: int) -> str:
    if plan.files is not None and needed + FILES_KEPT_FREE > plan.files:
        return f"ulimit -n {needed + FILES_KEPT_FREE}, and --in-flight {needed}"
    return f"--in-flight {needed}"


def judge_files(plan: Plan) -> Finding:
    """Whether the limit of open files leaves room for the connections."""
    if plan.files is None:
        return Finding("open files", _OK, "not limited")
    figures = {"limit": plan.files, "allowed_in_flight": plan.in_flight}
    if isinstance(plan.in_flight, str):
        said, _, remedy = plan.in_flight.partition(": ")
        return Finding("open files", _FAIL, said, remedy, figures)
    if DEFAULT_IN_FLIGHT > plan.in_flight >= plan.files - FILES_KEPT_FREE:
        said = f"{plan.files:,} may be open, which leaves room for {plan.in_flight:,} requests in flight"
        remedy = f"ulimit -n {DEFAULT_IN_FLIGHT + FILES_KEPT_FREE}, should the latency rise"
        return Finding("open files", _WARN, said, remedy, figures)
    needed = plan.in_flight + FILES_KEPT_FREE
    said = f"{plan.files:,} may be open; {plan.in_flight:,} requests in flight and the rest need {needed:,}"
    return Finding("open files", _OK, said, figures=figures)


def judge_state(state: StateFolder) -> Finding:
    """Whether the uploads of this machine can share the limit by a file there."""
    figures: dict[str, object] = {"path": str(state.path)}
    if state.trouble:
        said = f"uploads cannot share their limit in {state.path}: {state.trouble}"
        remedy = "name a folder on a local disk with XDG_STATE_HOME; or let only one upload run at a time"
        return Finding("state folder", _WARN, said, remedy, figures)
    said = f"{state.path} can be written and locked: uploads share their limit there"
    if state.notes:
        return Finding("state folder", _WARN, "; ".join((said, *state.notes)), "wait for that long", figures)
    return Finding("state folder", _OK, said, figures=figures)


def judge_alone() -> Finding:
    """An upload that keeps the limit by itself needs no place for it."""
    said = "not needed for the limit: with --pace process each upload keeps all of it to itself"
    return Finding("state folder", _OK, said)


def judge_pace(server: PaceServer) -> Finding:
    """Whether the Redis server can keep the pace of several hosts."""
    if server.trouble:
        said, _, remedy = (
            server.trouble.partition(": ") if server.missing else (f"{server.place}: {server.trouble}", "", "")
        )
        remedy = remedy or "see that it runs, and correct --pace or MOE_BULK_PACE; until then an upload sends nothing"
        return Finding("pace", _FAIL, said, remedy, {"place": server.place})
    middle, worst = median(server.seconds), max(server.seconds)
    figures: dict[str, object] = {"place": server.place, "median_ms": round(middle * 1000, 1)}
    figures |= {
        "worst_ms": round(worst * 1000, 1),
        "version": server.version or None,
        "first_wait_seconds": server.wait,
    }
    said = f"{server.place} answers in {_ms(middle)}, at worst {_ms(worst)} of {len(server.seconds)}"
    if server.wait:
        said += f"; it does not know this workspace yet: a first upload waits for {duration(server.wait)}"
    for wrong, what, remedy in (
        (worst > SLOW_PACE, "that is long for what is asked some times a second", "a server nearer to this machine"),
        (
            server.policy.startswith("allkeys"),
            f"when its memory is full it removes any key ({server.policy}): then all uploads wait for as long",
            "a server with maxmemory-policy noeviction, or volatile-ttl",
        ),
        (
            not server.told,
            "it does not tell which server it is (INFO): an older state of it, come back, may go unnoticed",
            "let this user call INFO",
        ),
    ):
        if wrong:
            return Finding("pace", _WARN, f"{said}; {what}", remedy, figures)
    return Finding("pace", _OK, said, figures=figures)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"
