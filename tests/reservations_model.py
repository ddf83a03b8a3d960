"""The script that keeps a shared pace, in Python: what `reservations.lua` is held against, and a server for tests.

It is written from what the script promises and as plainly as can be: all bins in one dictionary, nothing is cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

MICRO = 1_000_000
CREDIT, STALE, SET_BACK = MICRO // 4, 10 * MICRO, MICRO

Word: TypeAlias = "str | int"


@dataclass
class Member:
    """A process that the hash knows."""

    limit: int
    tail: int
    share: int
    away: int
    seen: int
    joined: int
    report: int


@dataclass
class Hash:
    """One life of the hash; times are microseconds."""

    gen: str
    server: str
    per: int
    next: float
    at: int
    born: int
    blocked: int
    turn: int = 0
    cut: int = 0
    newest: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)


class Model:
    """A server with one hash: `call` carries the script's arguments out at the moment `now`."""

    def __init__(self, server: str = "a") -> None:
        self.server = server
        self.hash: Hash | None = None

    def call(self, words: list[Word], now: int) -> list[str]:  # noqa: C901, PLR0912, PLR0915  as the script reads
        """Answer as the script does."""
        me, known, known_turn = str(words[0]), str(words[1]), int(words[2])
        limit, per, hold, tail, share, away, want, quiet = (int(each) for each in words[3:11])
        again, numbers = str(words[11]), [int(each) for each in words[12:]]
        width, horizon = max(1000, math.ceil(per / 512)), max(per // 12, MICRO)
        s, told = self.hash, now
        now = max(told, s.at) if s else told

        why = ""
        if s is None:
            why = "empty"
        elif s.server != self.server:
            why = "restarted"
        elif known == s.gen and s.turn < known_turn:
            why = "set back"
        elif known == s.gen and again:
            why = again
        elif told < s.at - SET_BACK:
            why = "clock"
        elif s.per != per:
            others = [each for name, each in s.members.items() if name != me and now - each.seen * 1000 <= STALE]
            if others:
                kept = min(each.limit for each in others)
                return ["per", str(told), s.gen, str(s.turn), "", str(s.per), str(kept)]
            why = "per"
        if why:
            whole = hold + max([tail, *(each.tail for each in s.members.values())] if s else [tail])
            blocked = told + whole + horizon
            if why == "per":
                assert s is not None
                blocked = max(s.blocked, s.newest * max(1000, math.ceil(s.per / 512)) + hold)
            now = told
            s = Hash(f"{me}.{told}", self.server, per, told, told, told, blocked, cut=(told - CREDIT - hold) // width)
        assert s is not None
        if known not in ("", s.gen) and quiet >= 0:
            s.blocked = max(s.blocked, now - quiet + hold + tail)

        s.cut = max(s.cut, (now - CREDIT - hold) // width)
        s.bins = {number: count for number, count in s.bins.items() if number > s.cut}

        def change(number: int, by: int) -> None:
            if number > s.cut:
                s.bins[number] = max(0, s.bins.get(number, 0) + by)
                s.newest = max(s.newest, number)

        heard, unused = s.members[me].report if me in s.members else 0, 0
        while numbers:
            report, gone, count, *numbers = numbers
            pairs, numbers = numbers[: 2 * count], numbers[2 * count :]
            if report > heard:
                heard, unused = report, unused + gone
                for number, by in zip(pairs[::2], pairs[1::2], strict=True):
                    if by > 0 or known == s.gen:
                        change(number, by)

        if want < 0:
            s.members.pop(me, None)
        else:
            joined = s.members[me].joined if me in s.members else now // 1000
            s.members[me] = Member(limit, tail, share, away, now // 1000, joined, heard)
        cap, longest, peers = self._cap(s, limit, tail, now, hold + horizon)

        step = per / (0.98 * max(1, cap))
        far = now + horizon
        s.next = max(s.next - unused * step, now - CREDIT)
        due, retry, runs, granted = max(s.next, s.blocked), now + horizon // 4, [], 0
        if want > 0 and cap > 0 and due > far:
            retry = math.ceil(due) - horizon // 2
        elif want > 0 and cap > 0:
            before = dict(s.bins)
            while granted < want and due <= far:
                ending = sum(count for number, count in before.items() if number > math.floor((due - hold) / width))
                if (room := cap - ending - granted) > 0:
                    number = min(room, want - granted, math.floor((far - due) / step) + 1)
                    final = due + (number - 1) * step
                    counted = math.ceil((final + tail) / width)
                    runs += [math.ceil(due), math.ceil(final), number, counted]
                    change(counted, number)
                    granted, due = granted + number, due + number * step
                    s.next = due
                else:
                    passing = [each for each, count in before.items() if count and each * width + hold > due]
                    due = min(passing, default=far) * width + hold
        s.at, s.turn, self.hash = now, s.turn + 1, s
        s.next = float(f"{s.next:.0f}")
        told_words = [told, s.gen, s.turn, why, width, cap, peers, s.blocked, retry, longest, *runs]
        return ["ok", *map(str, told_words)]

    @staticmethod
    def _cap(s: Hash, limit: int, tail: int, now: int, hold: int) -> tuple[int, int, int]:
        """What all together may send now, the longest tail and the number of those at work."""

        def part(member: Member) -> int:
            return math.ceil(member.limit / member.share) if member.share else 0

        def lasts(member: Member) -> int:
            return member.away + hold + member.tail

        live = {name for name, each in s.members.items() if now - each.seen * 1000 <= STALE}
        s.members = {
            name: each for name, each in s.members.items() if name in live or now < each.seen * 1000 + lasts(each)
        }
        steady = sum(now - s.members[name].joined * 1000 >= STALE for name in live)
        silent = [each for name, each in s.members.items() if name not in live and each.share]
        young = [each for each in s.members.values() if each.share and now < s.born + lasts(each)]
        room = max(0, max([each.share for each in silent], default=0) - steady) * max(map(part, silent), default=0)
        reserved = max([min(sum(map(part, silent)), room), *((each.share - steady) * part(each) for each in young)])
        base = min([limit, *(s.members[name].limit for name in live)])
        longest = max([tail, *(s.members[name].tail for name in live)])
        return max(0, base - reserved), longest, len(live)
