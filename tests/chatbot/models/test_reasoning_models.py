"""Reasoning models over scripted endpoints: thinking goes on exactly, counts apart, has a budget, and is no text."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from chatbot.events import Usage
from chatbot.models.choice_probabilities import YES_OR_NO
from chatbot.models.client import open_models
from chatbot.models.completion import Sampling
from chatbot.models.pool import ModelSettings, ModelsMisconfigured
from chatbot.models.thinking import begun_answer
from chatbot.tokenizer import RenderedChat, Tokenizer
from llm_server.scripted import Behaviour, Template, scripted_server, write_tokenizer
from tests.chatbot.models.scripted_pool import CHAT, Served, ask, prompt, serve

pytestmark = pytest.mark.anyio

THINKING = "<think>\n기본이율 50%? 🙂\n</think>\n\n"
ANSWER = "중도해지 시 ₩1,000입니다."


@dataclass(frozen=True)
class Thinker:
    """A reasoning model: the tokenizer in its folder, and what it does."""

    tokenizer: Tokenizer
    behaviour: Behaviour

    @property
    def thinking(self) -> str:
        """What it says before its answer, after what the prompt has said for it."""
        return THINKING.removeprefix("<think>\n" if self.tokenizer.opens_thinking else "")

    @property
    def output(self) -> list[int]:
        """What it generates, but for the token at the end."""
        return self.tokenizer.encode(self.thinking + ANSWER)

    @property
    def thought(self) -> int:
        """The number of its tokens up to the closing marker."""
        return len(self.tokenizer.encode(self.thinking.rstrip()))

    @property
    def prompt(self) -> RenderedChat:
        return RenderedChat(prompt(self.tokenizer), CHAT)


def thinker(folder: Path, template: Template, *, marked: bool) -> Thinker:
    tokenizer = Tokenizer.load(write_tokenizer(folder, template=template, marked=marked))
    behaviour = Behaviour(thinking=THINKING, answer=ANSWER, probe=0.9, template=template, marked=marked)
    return Thinker(tokenizer, behaviour)


KINDS: list[tuple[Template, bool]] = [("switched", True), ("opening", True), ("switched", False), ("opening", False)]


@pytest.fixture(params=KINDS, ids=["switched by ids", "opening by ids", "switched by text", "opening by text"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Thinker:
    template, marked = request.param
    return thinker(tmp_path, template, marked=marked)


BUDGETS = Sampling(max_tokens=100, thinking_tokens=100)


async def test_one_killed_after_any_token_goes_on_exactly_and_is_charged_once(model: Thinker) -> None:
    whole = len(model.output) + 1  # the end is generated, too
    assert model.tokenizer.thinks
    for k in range(whole + 1):
        async with serve(model.tokenizer, [model.behaviour] * 2) as served:
            served.servers[served.home("c-1")].tell(die_after=k if k < whole else None)
            heard = await ask(served, sampling=BUDGETS)
        assert heard.text == ANSWER, k
        assert list(heard.token_ids) == model.output
        assert heard.done.finish_reason == "stop"
        usage = heard.done.usage
        assert (usage.thinking_tokens, usage.generated_tokens) == (model.thought, whole)


async def test_a_successor_goes_on_after_any_token_as_if_nothing_had_happened(model: Thinker) -> None:
    async with serve(model.tokenizer, [model.behaviour]) as served:
        for k in range(1, len(model.output)):
            logged = model.output[:k]
            if model.tokenizer.decode(logged).endswith("\N{REPLACEMENT CHARACTER}"):
                continue
            said = begun_answer(model.tokenizer, model.prompt, logged, BUDGETS)
            rest = await ask(served, sampling=BUDGETS, begun_ids=logged)
            assert said.text + rest.text == ANSWER, k
            assert [*logged, *rest.token_ids] == model.output
            assert rest.done.usage.generated_tokens == len(model.output) + 1
            assert rest.done.usage.thinking_tokens == model.thought


async def test_a_probe_is_answered_without_thinking(model: Thinker) -> None:
    ids = model.tokenizer.render(CHAT, thinks=False)
    async with serve(model.tokenizer, [model.behaviour]) as served:
        for thinks, expected in ((False, 0.9), (True, 0.5)):
            chat = RenderedChat(model.tokenizer.render(CHAT, thinks=thinks), CHAT, thinks)
            yes, _ = await served.models.choice_probabilities(chat, YES_OR_NO, conversation_id="c", cache_salt="")
            assert yes == pytest.approx(expected, abs=0.02), thinks
    assert model.tokenizer.decode(ids).endswith("</think>\n\n")


async def test_thinking_that_does_not_end_is_ended_at_its_budget(model: Thinker) -> None:
    endless = Behaviour(
        thinking="<think>\n" + "그런데 " * 200,
        answer="",
        template=model.behaviour.template,
        marked=model.behaviour.marked,
    )
    async with serve(model.tokenizer, [endless]) as served:
        heard = await ask(served, sampling=Sampling(max_tokens=100, thinking_tokens=7))
        assert (heard.text, heard.done.finish_reason) == ("", "length")
        expected = Usage(prompt_tokens=len(model.prompt.ids), thinking_tokens=7)
        assert heard.done.usage == expected
        [request] = served.servers[0].stats().requests
        assert request.answer_tokens < 20, "the endpoint is left"
    assert [call.outcome for call in served.calls] == ["ok"]


async def test_an_answer_has_its_own_length_beside_the_thinking(model: Thinker) -> None:
    async with serve(model.tokenizer, [model.behaviour]) as served:
        heard = await ask(served, sampling=Sampling(max_tokens=3, thinking_tokens=100))
    assert heard.done.finish_reason == "length"
    assert heard.done.usage.answer_tokens == 3
    assert ANSWER.startswith(heard.text)
    assert heard.text


@pytest.mark.parametrize("thinking", ["<think>\nnur das", "<think>\nnur das\n</think>"])
async def test_a_reply_that_is_only_thinking_has_no_text(tmp_path: Path, thinking: str) -> None:
    model = thinker(tmp_path, "switched", marked=True)
    async with serve(model.tokenizer, [Behaviour(thinking=thinking, answer="", template="switched")]) as served:
        heard = await ask(served, sampling=BUDGETS)
    assert (heard.text, heard.done.finish_reason) == ("", "stop")
    assert heard.done.usage.thinking_tokens == len(model.tokenizer.encode(thinking))


@pytest.mark.parametrize("template", ["plain", "switched", "opening"])
async def test_a_fallback_of_another_tokenizer_thinks_unheard_and_a_primary_goes_on_after_its_answer(
    tmp_path: Path, tokenizer: Tokenizer, template: Template
) -> None:
    ours = thinker(tmp_path, template, marked=True)
    other = thinker(tmp_path / "other", "opening", marked=True)
    dead = Behaviour(dead=True, template=template, answer=ANSWER, thinking=THINKING if template != "plain" else "")
    async with serve(ours.tokenizer, [dead], [other.behaviour], foreign=other.tokenizer) as served:
        heard = await ask(served, messages=CHAT, sampling=BUDGETS)
        assert heard.text == ANSWER
        assert heard.done.usage.thinking_tokens >= other.thought
        half = heard.token_ids[: len(heard.token_ids) - len(ours.tokenizer.encode(ANSWER[6:]))]
        served.servers[0].tell(dead=False)
        served.members[0].breaker = served.members[1].breaker
        rest = await ask(served, messages=CHAT, sampling=BUDGETS, begun_ids=half)
    said = begun_answer(ours.tokenizer, ours.prompt, half, BUDGETS)
    assert said.text == ANSWER[:6]
    assert rest.done.models == ("primary",)
    assert said.text + rest.text == ANSWER
    assert tokenizer.encode(ANSWER) == ours.tokenizer.encode(ANSWER)


async def test_a_template_switches_thinking_off(tmp_path: Path) -> None:
    model = thinker(tmp_path, "switched", marked=True)
    async with scripted_server(model.behaviour) as server:
        settings = {
            "llm_urls": server.url,
            "llm_tokenizer": tmp_path,
            "llm_profile": "scripted",
            "llm_chat_template_kwargs": {"enable_thinking": False},
        }
        async with open_models(ModelSettings.model_validate(settings)) as models:
            assert not models.think
            heard = await ask(Served(models, [server]))
            assert (heard.text, heard.thinking_tokens) == (ANSWER, 0)
        server.tell(template="plain")  # a server whose template has no such switch is another
        with pytest.raises(ModelsMisconfigured, match="chat template"):
            async with open_models(ModelSettings.model_validate(settings)):
                pass


async def test_primaries_share_the_switches_of_their_template(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", template="switched")
    file = tmp_path / "models.yaml"
    entry = f"profile: scripted, urls: ['http://127.0.0.1:1'], tokenizer: {tmp_path / 'tokenizer'}"
    file.write_text(
        f"- {{name: a, {entry}}}\n- {{name: b, {entry}, chat_template_kwargs: {{enable_thinking: false}}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ModelsMisconfigured, match="the same `chat_template_kwargs`"):
        ModelSettings(models_file=file).read()
