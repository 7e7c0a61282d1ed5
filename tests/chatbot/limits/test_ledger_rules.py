"""The ledger on a real Redis against a simple model of its rules, step by step; and five hundred at once."""

import asyncio
import random
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo

import anyio
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from redis.asyncio import BlockingConnectionPool, Redis

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import RateLimited
from chatbot.events import Usage
from chatbot.limits.ledger import Caller, Ledger, Reservation
from chatbot.limits.limits import MICRO, SCOPES, Dimension, LedgerSettings, Limit, LimitSettings, Scope
from chatbot.redis_client import RedisBreaker
from tests.chatbot.conftest import PATIENT

T = TypeVar("T")

SEOUL = ZoneInfo("Asia/Seoul")
SPAN = 61
LIMITS = LimitSettings(
    tenant=Limit(tokens_per_minute=150, requests_per_minute=8, concurrent=5, tokens_per_day=400),
    user=Limit(tokens_per_minute=100, requests_per_minute=6, concurrent=3, tokens_per_day=220),
    model=Limit(tokens_per_minute=120, requests_per_minute=7, concurrent=4, tokens_per_day=320),
)


# --- the model of the rules ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Part:
    """Tokens that were charged at one moment, to one scope."""

    second: int
    tokens: int
    day: str
    requests: int
    resets: int = 0
    """How often its scope had been reset before."""
    fixed: bool = False
    """The clock was set back since: the minute keeps it as it is."""


UNKNOWN = 1
"""Less than any known wait in microseconds."""


@dataclass
class Books:
    """What one scope has spent."""

    limit: Limit
    parts: list[Part] = field(default_factory=list)
    days: dict[str, int] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    resets: int = 0

    def live(self, second: int) -> list[Part]:
        """What counts: the last 61 buckets; nothing where even the newest is so far ahead that the clock was set."""
        newest = max((part.second for part in self.parts), default=second)
        return [part for part in self.parts if part.second > second - SPAN] if newest <= second + SPAN else []

    def tokens(self, second: int) -> int:
        return sum(part.tokens for part in self.live(second))

    def requests(self, second: int) -> int:
        return sum(part.requests for part in self.live(second))

    def slots(self, now: int) -> int:
        return sum(until > now for until in self.leases.values())

    def waits(self, tokens: int, now: int, day: str, day_ends: int) -> list[int]:
        """For each dimension, the microseconds until `tokens` more would fit; of a slot nobody knows."""
        ordered = sorted(self.live(now // MICRO), key=lambda part: part.second)
        spent = [(part.second, part.tokens) for part in ordered]
        asked = [(part.second, part.requests) for part in ordered]
        full = self.days.get(day, 0) + tokens > self.limit.tokens_per_day
        return [
            until_it_fits(spent, tokens, self.limit.tokens_per_minute, now),
            until_it_fits(asked, 1, self.limit.requests_per_minute, now),
            UNKNOWN if self.slots(now) >= self.limit.concurrent else 0,
            day_ends - now if full else 0,
        ]

    def charge(self, part: Part) -> None:
        """Forget what has left, then add."""
        newest = max((other.second for other in self.parts), default=part.second)
        self.parts = self.live(part.second)
        for other in self.parts:
            other.fixed = other.fixed or part.second < newest
        part.resets = self.resets
        self.parts.append(part)
        self.days[part.day] = self.days.get(part.day, 0) + part.tokens

    def correct(self, part: Part, amount: int, second: int) -> None:
        """Give back, or charge on top, what turned out otherwise."""
        if part.resets != self.resets:
            return  # it was forgiven with all the rest
        self.days[part.day] += amount
        if part in self.live(second) and not part.fixed:
            part.tokens += amount

    def forgive(self) -> None:
        """Forget the minute and the days."""
        self.parts, self.days, self.resets = [], {}, self.resets + 1


def until_it_fits(spent: list[tuple[int, int]], amount: int, limit: int, now: int) -> int:
    excess = sum(tokens for _, tokens in spent) + amount - limit
    for second, tokens in spent:
        if excess <= 0:
            break
        excess -= tokens
        if excess <= 0:
            return (second + SPAN) * MICRO - now
    return 0


# --- the machine -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Open:
    """A reservation, as both sides know it."""

    reservation: Reservation
    parts: list[list[Part]]
    entries: list["Entry"]

    @property
    def charged(self) -> int:
        return sum(entry.tokens for entry in self.entries)


@dataclass(eq=False)
class Entry:
    """What was really admitted, when: kept beside the model, and looked at without buckets."""

    at: int
    tokens: int
    caller: Caller

    def belongs_to(self, scope: Scope, caller: Caller) -> bool:
        return {
            "tenant": True,
            "user": self.caller.sub == caller.sub,
            "model": self.caller.model == caller.model,
        }[scope]


class LedgerMachine(RuleBasedStateMachine):
    """Two users of two models of one tenant, on a clock that tests set."""

    steps = 0
    opened = Bundle("opened")
    settled = Bundle("settled")
    users = st.sampled_from(["lee", "kim"])
    models = st.sampled_from(["large", "small"])

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.redis = Redis.from_url(redis_url)
        self.now = round(datetime(2027, 3, 1, 23, 58, 30, tzinfo=SEOUL).timestamp()) * MICRO + 250_000
        self.tenant = uuid.uuid4().hex
        self.ledger = Ledger(
            self.redis,
            RedisBreaker(PATIENT),
            LedgerSettings(limits=LIMITS),
            clock=lambda: self.now / MICRO,
            deferred=DeferredWrites(DeferredSettings()),
        )
        self.books: dict[tuple[Scope, str], Books] = {}
        self.admitted: list[Entry] = []
        self.unsettled: dict[str, Open] = {}

    def run(self, command: Coroutine[object, object, T]) -> T:
        type(self).steps += 1
        return self.loop.run(command)

    def teardown(self) -> None:
        self.loop.run(self.redis.aclose())
        self.loop.close()

    def caller(self, sub: str, model: str) -> Caller:
        return Caller(tenant=self.tenant, sub=sub, model=model)

    def books_of(self, caller: Caller) -> tuple[Books, Books, Books]:
        names = zip(SCOPES, (caller.tenant, caller.sub, caller.model), LIMITS.limits_of(), strict=True)
        tenant, user, model = (self.books.setdefault((scope, name), Books(limit)) for scope, name, limit in names)
        return tenant, user, model

    @property
    def second(self) -> int:
        return self.now // MICRO

    @property
    def today(self) -> datetime:
        return datetime.fromtimestamp(self.second, SEOUL).replace(hour=0, minute=0, second=0)

    def midnight(self) -> int:
        return round((self.today + timedelta(days=1)).timestamp()) * MICRO

    def charged(self, books: tuple[Books, Books, Books], tokens: int, day: str, requests: int) -> list[Part]:
        parts = [Part(self.second, tokens, day, requests) for _ in books]
        for book, part in zip(books, parts, strict=True):
            book.charge(part)
        return parts

    @rule(
        target=opened,
        sub=users,
        model=models,
        prompt=st.integers(1, 60),
        answer=st.integers(0, 40),
        lease=st.integers(1, 90),
    )
    def reserve(self, sub: str, model: str, prompt: int, answer: int, lease: int) -> object:
        caller, tokens = self.caller(sub, model), prompt + answer
        books, day = self.books_of(caller), f"{self.today:%Y%m%d}"
        waits = [book.waits(tokens, self.now, day, self.midnight()) for book in books]
        call = self.ledger.reserve(caller, prompt_tokens=prompt, answer_tokens=answer, lease_seconds=lease)
        try:
            reservation = self.run(call)
        except RateLimited as exc:
            self.check(exc, waits)
            return hypothesis.stateful.multiple()
        assert not any(wait for each in waits for wait in each), "what does not fit is refused"
        parts = self.charged(books, tokens, day, requests=1)
        for book in books:
            book.leases = {name: until for name, until in book.leases.items() if until > self.now}
            book.leases[reservation.id] = self.now + lease * MICRO
        entry = Entry(self.now, tokens, caller)
        self.admitted.append(entry)
        self.unsettled[reservation.id] = Open(reservation, [parts], [entry])
        return self.unsettled[reservation.id]

    def check(self, refusal: RateLimited, waits: list[list[int]]) -> None:
        longest = max(wait for each in waits for wait in each)
        assert longest > 0, "what fits is admitted"
        assert refusal.retry_after == (None if longest == UNKNOWN else longest / MICRO), "the wait is true"
        scopes: tuple[str, ...] = SCOPES
        assert waits[scopes.index(refusal.scope)][get_args(Dimension).index(refusal.dimension)] == longest

    @rule(target=opened, held=consumes(opened), more=st.integers(1, 40))
    def extend(self, held: Open, more: int) -> Open:
        caller, day = held.reservation.caller, held.parts[0][0].day
        books = self.books_of(caller)
        charge = held.reservation.tokens + more - held.charged  # all of it where it was given back
        fits = all(
            book.tokens(self.second) + charge <= book.limit.tokens_per_minute
            and book.days.get(day, 0) + charge <= book.limit.tokens_per_day
            for book in books
        )
        extended = self.run(self.ledger.extend(held.reservation, more_tokens=more))
        assert (extended is not None) == fits
        if extended is None:
            return held
        for book in books:
            if held.reservation.id in book.leases:
                until = self.now + round(held.reservation.lease_seconds * MICRO)
                book.leases[held.reservation.id] = max(book.leases[held.reservation.id], until)
        entry = Entry(self.now, charge, caller)
        self.admitted.append(entry)
        parts = self.charged(books, charge, day, requests=0)
        self.unsettled[extended.id] = Open(extended, [*held.parts, parts], [*held.entries, entry])
        return self.unsettled[extended.id]

    @rule(target=settled, held=consumes(opened), part=st.floats(0, 1.1))
    def settle(self, held: Open, part: float) -> Open:
        used = round(held.reservation.tokens * part)
        assert self.run(self.ledger.settle(held.reservation, Usage(prompt_tokens=used))) is not None
        self.correct(held, used)
        del self.unsettled[held.reservation.id]
        return held

    def correct(self, held: Open, used: int) -> None:
        """Charge what was used in place of what was reserved, and free the slot."""
        unused = held.charged - used
        corrections: list[tuple[int, int]] = [(-1, -unused)] if unused < 0 else []
        for n in reversed(range(len(held.parts))):
            back = min(unused, held.entries[n].tokens)
            if back > 0:
                corrections.append((n, -back))
                held.entries[n].tokens -= back
                unused -= back
        for scope, book in enumerate(self.books_of(held.reservation.caller)):
            book.leases.pop(held.reservation.id, None)
            for n, amount in corrections:
                book.correct(held.parts[n][scope], amount, self.second)

    def give_back_lapsed(self) -> None:
        for held in self.unsettled.values():
            tenant, _, _ = self.books_of(held.reservation.caller)
            if tenant.leases.get(held.reservation.id, self.now + 1) <= self.now:
                self.correct(held, 0)
                held.parts, held.entries = held.parts[-1:], held.entries[-1:]

    @rule(held=settled, used=st.integers(0, 100))
    def settle_again(self, held: Open, used: int) -> None:
        assert self.run(self.ledger.settle(held.reservation, Usage(prompt_tokens=used))) is None

    @rule(held=settled, more=st.integers(1, 40))
    def extend_what_is_settled(self, held: Open, more: int) -> None:
        assert self.run(self.ledger.extend(held.reservation, more_tokens=more)) is None

    @rule(held=consumes(opened))
    def crash(self, held: Open) -> None:
        """Nobody settles it: it is given back, with its slot, when its lease has ended."""

    @rule(scope=st.sampled_from(SCOPES), sub=users, model=models)
    def reset(self, scope: Scope, sub: str, model: str) -> None:
        caller = self.caller(sub, model)
        n = SCOPES.index(scope)
        spending = self.run(self.ledger.reset(caller, scope))
        self.books_of(caller)[n].forgive()
        assert (spending[n].use.tokens, spending[n].use.requests, spending[n].use.today) == (0, 0, 0)
        # What was forgiven counts no more, for any of the scopes: the others have the model to hold them.
        self.admitted = [e for e in self.admitted if not e.belongs_to(scope, caller)]

    @rule(millis=st.one_of(st.integers(0, 3000), st.integers(0, 70_000)))
    def time_passes(self, millis: int) -> None:
        self.now += millis * 1000

    @rule(before=st.integers(-2000, 2000))
    def midnight_comes(self, before: int) -> None:
        self.now = max(self.now, self.midnight() - before * 1000)

    @rule(seconds=st.sampled_from([-1, -5, -30, -60, -61, -62, -100, -600, -90_000, 600, 90_000]))
    def the_clock_is_set(self, seconds: int) -> None:
        self.now += seconds * MICRO
        if seconds < 0:  # sixty seconds of such a clock are no sixty seconds: the books are held against the model only
            self.admitted = []

    @invariant()
    def both_sides_say_the_same(self) -> None:
        self.give_back_lapsed()
        for sub in ("lee", "kim"):
            for model in ("large", "small"):
                caller = self.caller(sub, model)
                for spending, book in zip(
                    self.loop.run(self.ledger.spending(caller)), self.books_of(caller), strict=True
                ):
                    use = spending.use
                    reported = (use.tokens, use.requests, use.slots, use.today)
                    day = book.days.get(f"{self.today:%Y%m%d}", 0)
                    assert reported == (book.tokens(self.second), book.requests(self.second), book.slots(self.now), day)

    @invariant()
    def never_more_than_the_limit_in_any_sixty_seconds(self) -> None:
        for caller in (self.caller("lee", "large"), self.caller("kim", "small")):
            for scope, limit in zip(SCOPES, LIMITS.limits_of(), strict=True):
                entries = [e for e in self.admitted if e.belongs_to(scope, caller)]
                for start in entries:
                    within = sum(e.tokens for e in entries if start.at <= e.at < start.at + 60 * MICRO)
                    assert within <= limit.tokens_per_minute


@pytest.mark.faults
def test_the_ledger_keeps_its_rules_whatever_comes_in_whatever_order(redis_url: str, fault_round: int) -> None:
    """A seed a round, each some hundred steps; `make faults N=50` takes thousands."""

    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(redis_url)

    rules = settings(
        max_examples=16,
        stateful_step_count=80,
        deadline=None,
        database=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(fault_round)(Machine), settings=rules)
    assert Machine.steps > 50, "each checked from four sides against the model"


# --- five hundred at once --------------------------------------------------------------------------------------------


async def race(ledgers: list[Ledger], who: Caller, amounts: list[int]) -> tuple[list[int], list[int]]:
    """Ask for all amounts at once, through several replicas; return the admitted and the refused ones."""
    admitted, refused = list[int](), list[int]()

    async def ask(ledger: Ledger, tokens: int) -> None:
        try:
            await ledger.reserve(who, prompt_tokens=tokens, answer_tokens=0, lease_seconds=300)
            admitted.append(tokens)
        except RateLimited:
            refused.append(tokens)

    async with anyio.create_task_group() as tasks:
        for n, tokens in enumerate(amounts):
            tasks.start_soon(ask, ledgers[n % len(ledgers)], tokens)
    return admitted, refused


@pytest.mark.anyio
async def test_five_hundred_reservations_at_once_never_pass_the_limit(redis_url: str) -> None:
    plenty = Limit(tokens_per_minute=10**6, requests_per_minute=10**4, concurrent=10**4, tokens_per_day=10**9)
    tenant = plenty.model_copy(update={"tokens_per_minute": 10_000})
    limits = LedgerSettings(limits=LimitSettings(tenant=tenant, user=plenty, model=plenty))
    chance, who = random.Random(7), Caller(tenant=uuid.uuid4().hex, sub="lee", model="qwen")  # noqa: S311  a test's dice
    amounts = [chance.randint(1, 400) for _ in range(500)]
    async with (
        Redis.from_pool(BlockingConnectionPool.from_url(redis_url, max_connections=50, timeout=60)) as first,
        Redis.from_pool(BlockingConnectionPool.from_url(redis_url, max_connections=50, timeout=60)) as second,
    ):
        # A stopped clock: nothing leaves the window, however long five hundred take on this machine.
        ledgers = [
            Ledger(
                redis,
                RedisBreaker(PATIENT),
                limits,
                clock=lambda: 1_800_000_000.5,
                deferred=DeferredWrites(DeferredSettings()),
            )
            for redis in (first, second)
        ]
        admitted, refused = await race(ledgers, who, amounts)
        assert len(admitted) + len(refused) == 500
        assert sum(admitted) <= 10_000
        assert min(refused) > 10_000 - sum(admitted), "nothing that fitted was refused"
        assert (await ledgers[0].limits(who)).remaining_tokens == 10_000 - sum(admitted)
