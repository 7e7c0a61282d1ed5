"""The quota of one replica while Redis is away: its share of the rates and of the day's remainder that it last saw.

Pure bookkeeping on monotonic time, in seconds. The replica's own last minute counts, also what it reserved through
Redis, so that an outage never opens a second, full window beside the first.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatbot.errors import RateLimited, StoreUnavailable
from chatbot.limits.limits import Limit, Scope, Use

WINDOW_SECONDS = 60.0
MOST_SCOPES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedScope:
    """One of the three scopes that a reservation is charged to, with its whole limit; `key` names it."""

    scope: Scope
    key: str
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaClaim:
    """What one reservation takes of each of its scopes: tokens, a request, and a slot until `until`."""

    id: str
    scopes: Sequence[ChargedScope]
    tokens: int
    now: float
    until: float


@dataclass(slots=True)
class Spent:
    """The tokens of one reservation, spent at one time."""

    at: float
    tokens: int


@dataclass(slots=True)
class QuotaSpending:
    """What this replica has spent of one scope."""

    recent: deque[Spent] = field(default_factory=deque)
    leases: dict[str, float] = field(default_factory=dict)
    left_today: int | None = None
    """The day's remainder that Redis last reported."""
    spent_since: int = 0
    """Tokens spent without Redis since then."""


class OutageQuota:
    """Admits on one of `replicas` parts of the limits, for `seconds` after the first sign that Redis is away."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self._replicas = replicas
        self._seconds = seconds
        self._away_since: float | None = None
        self._spendings: OrderedDict[str, QuotaSpending] = OrderedDict()
        self._open: dict[str, Spent] = {}

    def end_outage(self) -> None:
        """Note that Redis takes charges."""
        self._away_since = None

    def record(self, claim: QuotaClaim) -> None:
        """Record a reservation that was admitted, by Redis or by `reserve`."""
        spent = Spent(claim.now, claim.tokens)
        self._open[claim.id] = spent
        for charged in claim.scopes:
            spending = self._spending(charged, claim.now)
            spending.recent.append(spent)
            spending.leases[claim.id] = claim.until

    def record_extension(self, reservation_id: str, more: int) -> None:
        """Record tokens that Redis has added to a reservation of this replica."""
        if (spent := self._open.get(reservation_id)) is not None:
            spent.tokens += more

    def note_remainder(self, charged: ChargedScope, left_today: int, *, now: float) -> None:
        """Note the day's remainder that Redis reports."""
        spending = self._spending(charged, now)
        spending.left_today = left_today
        spending.spent_since = 0

    def reserve(self, claim: QuotaClaim) -> None:
        """Admit on this replica's share, or record nothing.

        Raises:
            StoreUnavailable: Redis is away for too long, or the share never has this much, or not today.
            RateLimited: the share is used up for now.
        """
        self._check_time(claim.now)
        refusals = [
            refused
            for charged in claim.scopes
            for refused in self._refusals(charged, self._spending(charged, claim.now), claim)
        ]
        if refusals:
            raise max(refusals, key=lambda refused: refused.retry_after or 0.0)
        self.record(claim)
        for charged in claim.scopes:
            self._spending(charged, claim.now).spent_since += claim.tokens

    def extend(self, scopes: Sequence[ChargedScope], reservation_id: str, *, more: int, now: float) -> bool:
        """Add tokens to a reservation of this replica; False, and nothing recorded, where its share has no room."""
        spent = self._open.get(reservation_id)
        try:
            self._check_time(now)
        except StoreUnavailable:
            return False
        if spent is None or not all(self._has_room(charged, more, now) for charged in scopes):
            return False
        for charged in scopes:
            self._spending(charged, now).spent_since += more
        spent.tokens += more
        return True

    def settle(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int) -> None:
        """Charge `tokens` instead of what was reserved; a second call changes nothing."""
        spent = self._open.pop(reservation_id, None)
        if spent is None:
            return
        for charged in scopes:
            spending = self._spendings.get(charged.key)
            if spending is not None:
                spending.leases.pop(reservation_id, None)
                spending.spent_since = max(0, spending.spent_since + tokens - spent.tokens)
        spent.tokens = tokens

    def use(self, charged: ChargedScope, *, now: float) -> Use:
        """Return this replica's use of its share of a scope."""
        spending = self._spending(charged, now)
        newest = int(spending.recent[-1].at) if spending.recent else 0
        return Use(
            tokens=sum(spent.tokens for spent in spending.recent),
            newest_tokens=newest,
            requests=len(spending.recent),
            newest_request=newest,
            slots=len(spending.leases),
            today=charged.limit.share(self._replicas).tokens_per_day - self._left_today(charged, spending),
        )

    def _check_time(self, now: float) -> None:
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= self._seconds:
            raise StoreUnavailable

    def _has_room(self, charged: ChargedScope, tokens: int, now: float) -> bool:
        spending = self._spending(charged, now)
        spent = sum(entry.tokens for entry in spending.recent)
        rate = charged.limit.tokens_per_minute // self._replicas
        return spent + tokens <= rate and tokens <= self._left_today(charged, spending)

    def _left_today(self, charged: ChargedScope, spending: QuotaSpending) -> int:
        unseen = charged.limit.tokens_per_minute
        remainder = unseen if spending.left_today is None else spending.left_today
        return remainder // self._replicas - spending.spent_since

    def _refusals(self, charged: ChargedScope, spending: QuotaSpending, claim: QuotaClaim) -> list[RateLimited]:
        tokens = charged.limit.tokens_per_minute // self._replicas
        requests = charged.limit.requests_per_minute // self._replicas
        if claim.tokens > tokens or requests == 0 or claim.tokens > self._left_today(charged, spending):
            raise StoreUnavailable
        waits = {
            "tokens_per_minute": tokens_wait(spending.recent, claim, tokens),
            "requests_per_minute": requests_wait(spending.recent, claim, requests),
            "concurrent": slot_wait(spending.leases, claim, max(1, charged.limit.concurrent // self._replicas)),
        }
        return [
            RateLimited(scope=charged.scope, dimension=dimension, retry_after=wait)
            for dimension, wait in waits.items()
            if wait > 0
        ]

    def _spending(self, charged: ChargedScope, now: float) -> QuotaSpending:
        spending = self._spendings.setdefault(charged.key, QuotaSpending())
        self._spendings.move_to_end(charged.key)
        while spending.recent and spending.recent[0].at + WINDOW_SECONDS <= now:
            spending.recent.popleft()
        for reservation_id in [r for r, until in spending.leases.items() if until <= now]:
            del spending.leases[reservation_id]
            self._open.pop(reservation_id, None)
        if len(self._spendings) > MOST_SCOPES:
            self._spendings.popitem(last=False)
        return spending


def tokens_wait(recent: deque[Spent], claim: QuotaClaim, most: int) -> float:
    """Return the seconds until enough of the oldest tokens are a minute old."""
    excess = sum(spent.tokens for spent in recent) + claim.tokens - most
    if excess <= 0:
        return 0.0
    for spent in recent:
        excess -= spent.tokens
        if excess <= 0:
            return spent.at + WINDOW_SECONDS - claim.now
    return WINDOW_SECONDS


def requests_wait(recent: deque[Spent], claim: QuotaClaim, most: int) -> float:
    """Return the seconds until there are fewer than `most` requests in the minute."""
    return recent[len(recent) - most].at + WINDOW_SECONDS - claim.now if len(recent) >= most else 0.0


def slot_wait(leases: dict[str, float], claim: QuotaClaim, most: int) -> float:
    """Return the seconds until fewer than `most` leases run, if none of them is settled before."""
    return sorted(leases.values())[len(leases) - most] - claim.now if len(leases) >= most else 0.0
