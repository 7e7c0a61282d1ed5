"""The tokens that one replica may spend while Redis is unavailable: its share of the minute and the day's remainder.

Pure bookkeeping on monotonic time, in seconds. Tokens that the replica reserved through Redis fill its buckets too, so
that an outage does not add a full share to the minute before it. Requests are not counted, since each takes tokens.
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
    """One of the three scopes that a reservation is charged to, with its whole limit; `key` identifies it."""

    scope: Scope
    key: str
    limit: Limit


@dataclass(slots=True)
class Bucket:
    """A leaking bucket: half of a share fits, and the other half leaks in 60 s, so 60 s admit at most the share."""

    level: float = 0.0
    at: float = 0.0
    """When `level` was computed."""
    remainder: int | None = None
    """The day's remaining tokens that Redis last reported."""
    spent_since: int = 0
    """Tokens spent without Redis since that report."""

    def add(self, tokens: float, share: int, now: float) -> None:
        """Charge tokens, or refund them if negative.

        If Redis has admitted more than half of a share, no further tokens fit until the excess has leaked.
        """
        leaked = (now - self.at) * share / 120
        level = max(0.0, self.level - leaked) + tokens
        self.level = min(max(0.0, level), share)
        self.at = now


class OutageQuota:
    """Admits reservations on one of `replicas` shares of the limits, for the first `seconds` of an outage."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self._replicas = replicas
        self._seconds = seconds
        self._outage_since: float | None = None
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._reserved: OrderedDict[str, int] = OrderedDict()
        """The tokens of reservations that are not settled."""

    def end_outage(self) -> None:
        """Record that Redis accepts charges."""
        self._outage_since = None

    def set_remainder(self, charged: ChargedScope, remainder: int, *, now: float) -> None:
        """Set the day's remaining tokens that Redis reports."""
        bucket = self._bucket(charged, now)
        bucket.remainder = remainder
        bucket.spent_since = 0

    def record(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Record the tokens of a reservation, or of its extension, that Redis or `admit` has admitted."""
        self._reserved[reservation_id] = self._reserved.get(reservation_id, 0) + tokens
        if len(self._reserved) > MOST_RESERVATIONS:  # another replica has settled the oldest
            self._reserved.popitem(last=False)
        self._add(scopes, tokens, now)

    def admit(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Admit and record a reservation, or its extension, on this replica's share; record nothing if this fails.

        Raises:
            StoreUnavailable: the outage has lasted too long, or the tokens exceed half the share or today's remainder.
            RateLimited: the tokens do not fit into the share now.
        """
        if self._outage_since is None:
            self._outage_since = now
        if now - self._outage_since >= self._seconds:
            raise StoreUnavailable
        waits = {charged.scope: self._wait(charged, tokens, now) for charged in scopes}
        scope = max(waits, key=lambda name: waits[name])
        if waits[scope] > 0:
            raise RateLimited(scope=scope, dimension="tokens_per_minute", retry_after=waits[scope])
        self.record(scopes, reservation_id, tokens, now=now)
        for charged in scopes:
            self._bucket(charged, now).spent_since += tokens

    def settle(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int, *, now: float) -> None:
        """Charge `tokens` in place of the reserved ones; a second call changes nothing."""
        reserved = self._reserved.pop(reservation_id, None)
        if reserved is None:
            return
        self._add(scopes, tokens - reserved, now)
        for charged in scopes:
            bucket = self._bucket(charged, now)
            bucket.spent_since = max(0, bucket.spent_since + tokens - reserved)

    def use(self, charged: ChargedScope, *, now: float) -> Use:
        """Return the use of this replica's share of a scope; the half that the bucket never holds counts as used."""
        bucket = self._bucket(charged, now)
        share = charged.limit.share(self._replicas)
        empty_in = bucket.level * 120 / share.tokens_per_minute
        return Use(
            tokens=round(bucket.level + share.tokens_per_minute / 2),
            # So that `tightest` reports the time until the bucket is empty.
            newest_tokens=int(now + empty_in) - BUCKET_SPAN if bucket.level else 0,
            requests=0,
            newest_request=0,
            slots=0,
            today=share.tokens_per_day - self._remaining_today(charged, bucket),
        )

    def _wait(self, charged: ChargedScope, tokens: int, now: float) -> float:
        """Return the seconds until the tokens fit into a scope's bucket, not positive if they fit now.

        Raise `StoreUnavailable` if they never fit, or exceed the day's remainder.
        """
        bucket = self._bucket(charged, now)
        share = self._share(charged)
        if tokens > share / 2 or tokens > self._remaining_today(charged, bucket):
            raise StoreUnavailable
        excess = bucket.level + tokens - share / 2
        return excess * 120 / share

    def _share(self, charged: ChargedScope) -> int:
        """Return this replica's tokens per minute."""
        return max(1, charged.limit.tokens_per_minute // self._replicas)

    def _remaining_today(self, charged: ChargedScope, bucket: Bucket) -> int:
        """Return this replica's remaining tokens of the day; before a report of Redis, assume one minute's tokens."""
        remainder = charged.limit.tokens_per_minute if bucket.remainder is None else bucket.remainder
        return remainder // self._replicas - bucket.spent_since

    def _add(self, scopes: Sequence[ChargedScope], tokens: int, now: float) -> None:
        for charged in scopes:
            self._bucket(charged, now).add(tokens, self._share(charged), now)

    def _bucket(self, charged: ChargedScope, now: float) -> Bucket:
        """Return the scope's bucket with its level now."""
        bucket = self._buckets.setdefault(charged.key, Bucket(at=now))
        self._buckets.move_to_end(charged.key)
        if len(self._buckets) > MOST_SCOPES:
            self._buckets.popitem(last=False)
        bucket.add(0, self._share(charged), now)
        return bucket
