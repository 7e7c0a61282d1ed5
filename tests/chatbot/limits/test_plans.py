"""Plans: what a file may say, whose limits come of it, and what one that is changed or broken does."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from chatbot.events import Usage
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings
from chatbot.limits.plans import Plans, PlansRead, PlansRefused, open_plans, read_plans, version_of
from tests.patience import patient

pytestmark = pytest.mark.anyio

USER = Limit(tokens_per_minute=100, requests_per_minute=10, concurrent=2, tokens_per_day=1000)
SETTINGS = LedgerSettings(limits=LimitSettings(user=USER), tenants={"old": LimitSettings(zone="UTC")})

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "plans.yaml"
        file.write_text(text, "utf-8")
        return file

    return write


def test_what_an_entry_leaves_out_it_takes_from_the_default_and_a_role_from_the_user(write: Write) -> None:
    file = write("""
default:
  user: {concurrent: 3}
  roles:
    staff: {tokens_per_minute: 500}
tenants:
  hanbit:
    cached_weight: 0.25
    user: {tokens_per_day: 7}
""")
    book = read_plans(file, SETTINGS)
    assert book.default.user == USER.model_copy(update={"concurrent": 3})
    assert book.default.roles["staff"] == USER.model_copy(update={"concurrent": 3, "tokens_per_minute": 500})
    hanbit = book.tenants["hanbit"]
    assert hanbit.user == USER.model_copy(update={"concurrent": 3, "tokens_per_day": 7})
    assert hanbit.cached_weight == 0.25
    assert hanbit.tenant == SETTINGS.limits.tenant
    assert hanbit.limits_of({"staff", "customer"})[1].tokens_per_minute == 500
    assert hanbit.limits_of({"customer"})[1] == hanbit.user
    assert book.tenants["old"].zone == "UTC", "the settings' own tenants stay"


def test_of_several_roles_the_largest_of_each_dimension_counts() -> None:
    staff = USER.model_copy(update={"tokens_per_minute": 500, "concurrent": 1})
    service = USER.model_copy(update={"tokens_per_minute": 50, "concurrent": 9})
    plan = LimitSettings(user=USER, roles={"staff": staff, "service": service})
    assert plan.limits_of({"staff", "service"})[1] == USER.model_copy(
        update={"tokens_per_minute": 500, "concurrent": 9}
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("default: {user: {tokens_per_minut: 5}}", "default.user.tokens_per_minut"),
        ("default: {user: {tokens_per_minute: 0}}", "default.user.tokens_per_minute"),
        ("default: {user: {tokens_per_minute: much}}", "default.user.tokens_per_minute"),
        ("default: {roles: {boss: {concurrent: 5}}}", "default.roles.boss"),
        ("default: {user: 5, roles: {staff: {concurrent: 5}}}", "default.user"),
        ("default: {roles: 5}", "default.roles"),
        ("tenants: {hanbit: {cached_weight: 2}}", "tenants.hanbit.cached_weight"),
        ("tenants: {hanbit: {zone: Asia/Nowhere}}", "tenants.hanbit.zone"),
        ("tenants: {hanbit: 5}", "tenants.hanbit"),
        ("tenant: {}", "tenant"),
        ("[1, 2]", ""),
        ("default: {", "cannot be read"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused_with_its_place(write: Write, text: str, place: str) -> None:
    file = write(text)
    with pytest.raises(PlansRefused) as refused:
        read_plans(file, SETTINGS)
    assert str(file) in str(refused.value)
    assert place in str(refused.value)


@pytest.mark.parametrize(("weight", "charge"), [(1.0, 120), (0.25, 75), (0.0, 60)])
def test_cached_prompt_tokens_are_charged_at_their_weight(weight: float, charge: int) -> None:
    plan = LimitSettings(cached_weight=weight)
    assert plan.charge(Usage(prompt_tokens=100, cached_tokens=60, answer_tokens=20)) == charge
    assert plan.charge(Usage(prompt_tokens=10, cached_tokens=60, answer_tokens=0)) == round(10 * weight)


async def test_a_file_that_changes_is_read_once_it_is_left_alone(write: Write) -> None:
    file = write("default: {user: {concurrent: 3}}")
    seen: list[PlansRead] = []
    plans = Plans(SETTINGS, book=read_plans(file, SETTINGS), version=version_of(file), on_read=seen.append)

    async def look(times: int) -> int:
        for _ in range(times):
            await plans.check(file)
        return plans.of("anybody").user.concurrent

    assert await look(2) == 3
    assert seen == []
    write("default: {user: {concurrent: 44}}")
    assert await look(1) == 3, "its writer may be half done"
    assert await look(1) == 44
    assert await look(3) == 44
    assert seen == [PlansRead(accepted=True)], "read once a change"


@pytest.mark.parametrize("broken", ["default: {user: {concurrent: 0}}", "default: {", None])
async def test_a_file_that_breaks_or_goes_changes_nothing_until_it_is_whole_again(
    write: Write, broken: str | None
) -> None:
    file = write("default: {user: {concurrent: 3}}")
    seen: list[PlansRead] = []
    plans = Plans(SETTINGS, book=read_plans(file, SETTINGS), version=version_of(file), on_read=seen.append)
    if broken is None:
        file.unlink()
    else:
        write(broken)
    for _ in range(3):
        await plans.check(file)
    assert plans.of("anybody").user.concurrent == 3
    assert seen == [PlansRead(accepted=False)]
    write("default: {user: {concurrent: 5}}")
    for _ in range(3):
        await plans.check(file)
    assert plans.of("anybody").user.concurrent == 5
    assert seen[-1] == PlansRead(accepted=True)


async def test_while_plans_are_open_their_file_is_watched(write: Write) -> None:
    file = write("default: {user: {concurrent: 3}}")
    settings = SETTINGS.model_copy(update={"plans_file": file, "plans_every": 0.01})
    async with open_plans(settings, on_read=lambda _: None) as plans:
        assert plans.of("anybody").user.concurrent == 3
        write("default: {user: {concurrent: 44}}")
        with anyio.fail_after(patient(5)):
            while plans.of("anybody").user.concurrent == 3:
                await anyio.sleep(0.01)
    assert plans.of("anybody").user.concurrent == 44
