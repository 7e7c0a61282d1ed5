"""What one replica may spend while Redis is away: its share of the rates and of the day's remainder it last saw.

Pure bookkeeping on monotonic time. A replica's own last minute counts, also what it spent through Redis, so that an
outage never opens a second, full window beside the first.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatbot.errors import RateLimited, StoreUnavailable
from chatbot.limits.limits import Limit, Scope, Use

WINDOW_SECONDS = 60.0
MOST_HOLDERS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One of the three scopes a reservation is charged to, with its whole limit."""

    scope: Scope
    key: str
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaClaim:
    """What one reservation takes of each of its holders."""

    id: str
    holders: Sequence[Holder]
    tokens: int
    now: float
    until: float


@dataclass(slots=True)
class Spent:
    at: float
    tokens: int


@dataclass(slots=True)
class QuotaSpending:
    """What this replica knows of one holder."""

    recent: deque[Spent] = field(default_factory=deque)
    leases: dict[str, float] = field(default_factory=dict)
    left_today: int | None = None
    spent_away: int = 0


class OutageQuota:
    """Admits on one of `replicas` parts of the limits, for `seconds` after the first sign that Redis is away."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self._replicas = replicas
        self._seconds = seconds
        self._away_since: float | None = None
        self._holders: OrderedDict[str, QuotaSpending] = OrderedDict()
        self._open: dict[str, Spent] = {}

    def redis_answered(self) -> None:
        """Redis is there: the outage, if there was one, is over."""
        self._away_since = None

    def note(self, claim: QuotaClaim) -> None:
        """Remember what was reserved, be it through Redis or by `reserve`."""
        spent = Spent(claim.now, claim.tokens)
        self._open[claim.id] = spent
        for holder in claim.holders:
            spending = self._spending(holder, claim.now)
            spending.recent.append(spent)
            spending.leases[claim.id] = claim.until

    def saw_remainder(self, holder: Holder, left_today: int, *, now: float) -> None:
        """Remember the day's remainder that Redis told."""
        spending = self._spending(holder, now)
        spending.left_today = left_today
        spending.spent_away = 0

    def reserve(self, claim: QuotaClaim) -> None:
        """Admit on this replica's share, or write nothing.

        Raises:
            StoreUnavailable: Redis is away for too long, or the share does not hold this much today or ever.
            RateLimited: the share is used up for now.
        """
        self._still_allowed(claim.now)
        refusals = [
            refused
            for holder in claim.holders
            for refused in self._refusals(holder, self._spending(holder, claim.now), claim)
        ]
        if refusals:
            raise max(refusals, key=lambda refused: refused.retry_after or 0.0)
        self.note(claim)
        for holder in claim.holders:
            self._spending(holder, claim.now).spent_away += claim.tokens

    def extend(self, holders: Sequence[Holder], reservation: str, *, more: int, now: float) -> bool:
        """Add to a reservation of this replica where its share allows; False writes nothing."""
        spent = self._open.get(reservation)
        try:
            self._still_allowed(now)
        except StoreUnavailable:
            return False
        if spent is None or not all(self._holds(holder, more, now) for holder in holders):
            return False
        for holder in holders:
            self._spending(holder, now).spent_away += more
        spent.tokens += more
        return True

    def correct(self, holders: Sequence[Holder], reservation: str, tokens: int) -> None:
        """Settle this replica's own books; once."""
        spent = self._open.pop(reservation, None)
        if spent is None:
            return
        for holder in holders:
            spending = self._holders.get(holder.key)
            if spending is not None:
                spending.leases.pop(reservation, None)
                spending.spent_away = max(0, spending.spent_away + tokens - spent.tokens)
        spent.tokens = tokens

    def use(self, holder: Holder, *, now: float) -> Use:
        """Return what this replica has spent of its share."""
        spending = self._spending(holder, now)
        newest = int(spending.recent[-1].at) if spending.recent else 0
        return Use(
            tokens=sum(spent.tokens for spent in spending.recent),
            newest_tokens=newest,
            requests=len(spending.recent),
            newest_request=newest,
            slots=len(spending.leases),
            today=holder.limit.share(self._replicas).tokens_per_day - self._left_today(holder, spending),
        )

    def _still_allowed(self, now: float) -> None:
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= self._seconds:
            raise StoreUnavailable

    def _holds(self, holder: Holder, tokens: int, now: float) -> bool:
        spending = self._spending(holder, now)
        spent = sum(entry.tokens for entry in spending.recent)
        rate = holder.limit.tokens_per_minute // self._replicas
        return spent + tokens <= rate and tokens <= self._left_today(holder, spending)

    def _left_today(self, holder: Holder, spending: QuotaSpending) -> int:
        unseen = holder.limit.tokens_per_minute
        return (unseen if spending.left_today is None else spending.left_today) // self._replicas - spending.spent_away

    def _refusals(self, holder: Holder, spending: QuotaSpending, claim: QuotaClaim) -> list[RateLimited]:
        tokens = holder.limit.tokens_per_minute // self._replicas
        requests = holder.limit.requests_per_minute // self._replicas
        if claim.tokens > tokens or requests == 0 or claim.tokens > self._left_today(holder, spending):
            raise StoreUnavailable
        waits = {
            "tokens_per_minute": tokens_wait(spending.recent, claim, tokens),
            "requests_per_minute": requests_wait(spending.recent, claim, requests),
            "concurrent": slot_wait(spending.leases, claim, max(1, holder.limit.concurrent // self._replicas)),
        }
        return [
            RateLimited(scope=holder.scope, dimension=dimension, retry_after=wait)
            for dimension, wait in waits.items()
            if wait > 0
        ]

    def _spending(self, holder: Holder, now: float) -> QuotaSpending:
        spending = self._holders.setdefault(holder.key, QuotaSpending())
        self._holders.move_to_end(holder.key)
        while spending.recent and spending.recent[0].at + WINDOW_SECONDS <= now:
            spending.recent.popleft()
        for reservation in [r for r, until in spending.leases.items() if until <= now]:
            del spending.leases[reservation]
            self._open.pop(reservation, None)
        if len(self._holders) > MOST_HOLDERS:
            self._holders.popitem(last=False)
        return spending


def tokens_wait(recent: deque[Spent], claim: QuotaClaim, most: int) -> float:
    """Return how long until enough of the oldest tokens are a minute old."""
    excess = sum(spent.tokens for spent in recent) + claim.tokens - most
    if excess <= 0:
        return 0.0
    for spent in recent:
        excess -= spent.tokens
        if excess <= 0:
            return spent.at + WINDOW_SECONDS - claim.now
    return WINDOW_SECONDS


def requests_wait(recent: deque[Spent], claim: QuotaClaim, most: int) -> float:
    """Return how long until there are fewer than `most` requests in the minute."""
    return recent[len(recent) - most].at + WINDOW_SECONDS - claim.now if len(recent) >= most else 0.0


def slot_wait(leases: dict[str, float], claim: QuotaClaim, most: int) -> float:
    """Return how long until fewer than `most` leases run, were none of them settled before."""
    return sorted(leases.values())[len(leases) - most] - claim.now if len(leases) >= most else 0.0
