"""The tokens that one replica may spend while Redis is away: its share of the minute and of the day's remainder.

Pure bookkeeping on monotonic time, in seconds. What the replica reserved through Redis fills its buckets too, so an
outage never adds a full share to the minute before it. Requests and slots are not counted: each request takes tokens.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.errors import RateLimited, StoreUnavailable
from chatbot.limits.limits import BUCKET_SPAN, Limit, Scope, Use

MOST_SCOPES = 50_000
MOST_RESERVATIONS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedScope:
    """One of the three scopes that a reservation is charged to, with its whole limit; `key` names it."""

    scope: Scope
    key: str
    limit: Limit


@dataclass(slots=True)
class Bucket:
    """A leaking bucket: half of a share fits, and the other half leaks in 60 s, so no 60 s see more than the share."""

    level: float = 0.0
    at: float = 0.0
    left_today: int | None = None
    """The day's remainder that Redis last reported."""
    spent_since: int = 0
    """Tokens spent without Redis since then."""

    def add(self, tokens: float, share: int, now: float) -> None:
        """Charge tokens, or give them back; after a full share it takes 60 s until something fits again."""
        leaked = (now - self.at) * share / 120
        self.level = min(max(0.0, max(0.0, self.level - leaked) + tokens), share)
        self.at = now


class OutageQuota:
    """Admits on one of `replicas` parts of the limits, for `seconds` after the first sign that Redis is away."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self._replicas = replicas
        self._seconds = seconds
        self._away_since: float | None = None
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._reserved: OrderedDict[str, int] = OrderedDict()
        """The tokens of reservations that are not settled."""

    def end_outage(self) -> None:
        """Note that Redis takes charges."""
        self._away_since = None

    def note_remainder(self, charged: ChargedScope, left_today: int, *, now: float) -> None:
        """Note the day's remainder that Redis reports."""
        bucket = self._bucket(charged, now)
        bucket.left_today, bucket.spent_since = left_today, 0

    def record(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Record the tokens of a reservation, or of its extension, that Redis or `take` has admitted."""
        self._reserved[reservation_id] = self._reserved.get(reservation_id, 0) + tokens
        if len(self._reserved) > MOST_RESERVATIONS:  # of answers that another replica settles
            self._reserved.popitem(last=False)
        self._add(scopes, tokens, now)

    def take(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Admit a reservation, or its extension, on this replica's share, or record nothing.

        Raises:
            StoreUnavailable: Redis is away for too long, or the share never has this much, or not today.
            RateLimited: the share is used up for now.
        """
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since >= self._seconds:
            raise StoreUnavailable
        refusals = [refusal for charged in scopes for refusal in self._refusals(charged, tokens, now)]
        if refusals:
            raise max(refusals, key=lambda refusal: refusal.retry_after or 0.0)
        self.record(scopes, reservation_id, tokens, now=now)
        for charged in scopes:
            self._bucket(charged, now).spent_since += tokens

    def settle(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Charge `tokens` instead of what was reserved; a second call changes nothing."""
        reserved = self._reserved.pop(reservation_id, None)
        if reserved is None:
            return
        self._add(scopes, tokens - reserved, now)
        for charged in scopes:
            bucket = self._bucket(charged, now)
            bucket.spent_since = max(0, bucket.spent_since + tokens - reserved)

    def use(self, charged: ChargedScope, *, now: float) -> Use:
        """Return the use of this replica's share of a scope; tokens that do not fit now count as used."""
        bucket, share = self._bucket(charged, now), charged.limit.share(self._replicas)
        empty_in = bucket.level * 120 / share.tokens_per_minute
        return Use(
            tokens=round(bucket.level + share.tokens_per_minute / 2),
            newest_tokens=int(now + empty_in) - BUCKET_SPAN if bucket.level else 0,
            requests=0,
            newest_request=0,
            slots=0,
            today=share.tokens_per_day - self._left_today(charged, bucket),
        )

    def _refusals(self, charged: ChargedScope, tokens: int, now: float) -> list[RateLimited]:
        """Return why the bucket of a scope has no room for the tokens; it holds half of the share and empties in 60 s.

        Raises:
            StoreUnavailable: it never has, or the day's remainder does not suffice.
        """
        bucket, share = self._bucket(charged, now), self._share(charged)
        if tokens > share / 2 or tokens > self._left_today(charged, bucket):
            raise StoreUnavailable
        excess = bucket.level + tokens - share / 2
        wait = excess * 120 / share
        return [RateLimited(scope=charged.scope, dimension="tokens_per_minute", retry_after=wait)] if wait > 0 else []

    def _share(self, charged: ChargedScope) -> int:
        return max(1, charged.limit.tokens_per_minute // self._replicas)

    def _left_today(self, charged: ChargedScope, bucket: Bucket) -> int:
        """Return the day's tokens of this replica; an unknown remainder counts as a minute's."""
        remainder = charged.limit.tokens_per_minute if bucket.left_today is None else bucket.left_today
        return remainder // self._replicas - bucket.spent_since

    def _add(self, scopes: Sequence[ChargedScope], tokens: int, now: float) -> None:
        for charged in scopes:
            self._bucket(charged, now).add(tokens, self._share(charged), now)

    def _bucket(self, charged: ChargedScope, now: float) -> Bucket:
        """Return the scope's bucket as of now."""
        bucket = self._buckets.setdefault(charged.key, Bucket(at=now))
        self._buckets.move_to_end(charged.key)
        if len(self._buckets) > MOST_SCOPES:
            self._buckets.popitem(last=False)
        bucket.add(0, self._share(charged), now)
        return bucket
