"""Decide what becomes of every request: the whole of the sandbox but for its sockets. Pure; it is told the time."""

from __future__ import annotations

import math
import time
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple

from . import answers, rules
from .devices import Devices
from .faults import Decision
from .ledger import Exchange, Stats
from .window import BusiestServiceWindow, BusiestWindow, SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .answers import Answer
    from .settings import SandboxSettings

CONNECTION_TEST = "/v1/integrations/authentication"


class Plan(NamedTuple):
    """What to do about one request: wait `delay` seconds, apply `record`, then send `answer` in this `manner`.

    Manners: "whole" and "half" answers, "reset" (no answer, the connection is reset), "hang" (no answer, ever).
    """

    manner: str
    answer: Answer
    delay: float = 0.0
    record: rules.Record | None = None


class Service:
    """MoEngage's side of the conversation.

    For each request: `arrive`, then `plan` once the body is there, then `finish` when the plan is carried out (or
    `leave`, when no answer could be given).
    """

    def __init__(self, settings: SandboxSettings, api_key: str) -> None:
        self.settings = settings
        self.devices = Devices()
        self.requests: deque[Exchange] = deque(maxlen=settings.keep)
        per = settings.limit.per if settings.limit else 60.0
        self.stats = Stats(BusiestWindow(per), BusiestServiceWindow(per))
        self._api_key = api_key
        self._path = f"/v1/device/{settings.workspace_id}"
        self._window = SlidingWindow(settings.limit) if settings.limit else None
        self._scripts: dict[str, deque[Decision]] = {}

    def script(self, device_id: str, steps: Iterable[str]) -> None:
        """Give the next requests for a device these fates, one each, in the words of Faults.step."""
        self._scripts[device_id] = deque(map(self.settings.faults.step, steps))

    def arrive(self, now: float, connection: int, method: str, path: str, forwarded_for: str | None = None) -> Exchange:
        """Count a request when its head has come."""
        stats = self.stats
        stats.requests += 1
        exchange = Exchange(stats.requests, now, connection, method, path, forwarded_for)
        self.requests.append(exchange)
        if self._is_device(exchange):
            stats.arrive(now)
            if self._window is not None and not self._window.admit(now):
                stats.over_limit += 1
                exchange.over_limit = True
        return exchange

    def plan(self, exchange: Exchange, headers: Mapping[str, str], body: bytes | None) -> Plan:
        """Decide about a request when its body has come; None stands for a body beyond the limit."""
        if not self._is_device(exchange):
            return Plan("whole", self._elsewhere(exchange, headers, body))
        fields = rules.TOO_LARGE if body is None or len(body) > rules.MAX_BODY else rules.parse_object(body)
        if isinstance(fields, dict):
            exchange.customer_id = _text(fields.get("customer_id"))
            exchange.device_id = _text(fields.get("device_id"))
        decision = self._decide(exchange)
        plan = self._carry_out(decision, exchange, headers, fields)
        if self._window is not None and self.settings.rate_headers is not None:
            return plan._replace(answer=plan.answer.with_headers(*self._rate_headers(self._window, exchange.arrived)))
        return plan

    def finish(self, exchange: Exchange, plan: Plan, now: float) -> None:
        """Apply the device and close the books on a request, right before its answer is sent."""
        if plan.record is not None and self.settings.keep_devices:
            self.devices.apply(plan.record)
        if plan.manner == "reset":
            self.leave(exchange, now)
            return
        exchange.status = plan.answer.status
        exchange.error_type = plan.answer.error_type
        self.stats.by_status[plan.answer.status] += 1
        self._close(exchange, now)

    def leave(self, exchange: Exchange, now: float) -> None:
        """Close the books on a request that gets no answer: it was reset, or its client has gone."""
        self.stats.unanswered += 1
        self._close(exchange, now)

    def _close(self, exchange: Exchange, now: float) -> None:
        exchange.answered = now
        if self._is_device(exchange):
            self.stats.busiest_in_service.leave(now)

    def _is_device(self, exchange: Exchange) -> bool:
        return exchange.path == self._path and exchange.method == "POST"

    def _decide(self, exchange: Exchange) -> Decision:
        decision = self.settings.faults.decide(exchange.number)
        if exchange.over_limit:
            return Decision(delay=decision.delay)
        script = self._scripts.get(exchange.device_id or "")
        if script:
            step = script.popleft()
            decision = step._replace(delay=step.delay + decision.delay)
        if decision.name is not None:
            exchange.fault = decision.name
            self.stats.faults[decision.name] += 1
        return decision

    def _carry_out(
        self,
        decision: Decision,
        exchange: Exchange,
        headers: Mapping[str, str],
        fields: dict[str, object] | rules.Refusal,
    ) -> Plan:
        """Combine what was drawn with what the rules say."""
        if exchange.over_limit or decision.kind in {"status", "broken", "nosuccess"}:
            return Plan("whole", self._misfortune(decision, exchange), decision.delay)
        if decision.kind in {"reset", "hang"}:
            return Plan(decision.kind, answers.BROKEN, decision.delay)
        answer, record = self._judge(exchange, headers, fields)
        manner = {"reset-after": "reset", "half": "half"}.get(decision.kind, "whole")
        return Plan(manner, answer, decision.delay, record)

    def _misfortune(self, decision: Decision, exchange: Exchange) -> Answer:
        if exchange.over_limit:
            return answers.too_many(exchange.request_id, self._until_free(exchange.arrived))
        if decision.kind == "broken":
            return answers.BROKEN
        if decision.kind == "nosuccess":
            return answers.not_a_success(exchange.request_id)
        if decision.status == 429:
            return answers.too_many(exchange.request_id, decision.retry_after)
        return answers.with_status(decision.status, exchange.request_id)

    def _judge(
        self, exchange: Exchange, headers: Mapping[str, str], fields: dict[str, object] | rules.Refusal
    ) -> tuple[Answer, rules.Record | None]:
        verdict: rules.Record | rules.Refusal | None
        verdict = rules.judge_envelope(headers, self.settings.workspace_id, self._api_key)
        if verdict is None:
            verdict = fields if isinstance(fields, rules.Refusal) else rules.judge_device(fields)
        if isinstance(verdict, rules.Refusal):
            return answers.refused(verdict, exchange.request_id), None
        return answers.SUCCESS, verdict

    def _elsewhere(self, exchange: Exchange, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if exchange.path not in {self._path, CONNECTION_TEST}:
            return answers.with_status(404, exchange.request_id)
        if exchange.method != "POST":
            return answers.with_status(405, exchange.request_id).with_headers(("Allow", "POST"))
        refusal = rules.judge_connection_test(headers, body, self.settings.workspace_id, self._api_key)
        answer = answers.CONNECTED if refusal is None else answers.refused(refusal, exchange.request_id)
        return answer.with_headers(("Date", formatdate(usegmt=True)))

    def _until_free(self, now: float) -> float | None:
        return self._window.until_free(now) if self._window is not None and self.settings.retry_after else None

    def _rate_headers(self, window: SlidingWindow, now: float) -> list[tuple[str, str]]:
        reset = window.until_free(now) + (time.time() if self.settings.rate_headers == "epoch" else 0.0)
        return [
            ("x-ratelimit-limit", str(window.limit.count)),
            ("x-ratelimit-remaining", str(window.remaining(now))),
            ("x-ratelimit-reset", str(math.ceil(reset))),
        ]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
