"""Records what a model says to the questions of a data set, asked exactly as a turn asks it, for `evals gate`."""

import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import stamina
from rich.console import Console

from chatbot import answerability
from chatbot.errors import IndexUnavailable, ModelUnavailable, Overloaded
from chatbot.grounding import GroundingStream, QuotedAnswer, grounding_stream
from chatbot.models import (
    LEAST_CHOICE_MASS,
    YES_OR_NO,
    Delta,
    Models,
    ModelSettings,
    Sampling,
    number_choices,
    open_models,
)
from chatbot.prompt import Prompt, PromptBuilder, load_templates
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.retrieval import Retrieval, RetrievalSettings, SearchResult
from chatbot.services import TurnSettings
from chatbot.settings import Settings
from chatbot.tokenizer import Message
from evals.product import Model, ProductNotStarted, Wanted, child, model
from evals.quality.run import Errand, bar, loaded
from evals.questions import TENANT, Part, Recording, Sample, Shown, Spoken, made
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from knowledge.passage import Language, Passage, language_of

SCRIPTED = "scripted"
BANKS: dict[Language, str] = {"ko": "한빛은행", "en": "Hanbit Bank"}


async def record(errand: Errand, console: Console, *, part: Path, at_once: int) -> Recording:
    """Load the corpus, start the model and ask it every question that a customer of today could ask.

    What `part` holds of the same recording is not asked again.
    """
    samples = [sample for sample in errand.dataset.samples if sample.as_of is None]
    async with loaded(errand.dataset, errand.settings, errand.wanted.data, console) as (services, _):
        console.print(f"starting the model (profile {errand.wanted.profile})", highlight=False)
        async with speaking(errand.wanted) as models:
            recorder = Recorder(models, services.index)
            kept = Part(part, made(errand.dataset, model=models.model, profile=errand.wanted.profile))
            left = [sample for sample in samples if sample.id not in kept.answers]
            room = anyio.Semaphore(at_once)

            async def ask(sample: Sample, done: Callable[[], None]) -> None:
                try:
                    kept.keep(await recorder.ask(sample), recorder.shown)
                    done()
                finally:
                    room.release()

            with bar(console) as progress:
                task = progress.add_task("answers", total=len(samples), completed=len(samples) - len(left))
                async with anyio.create_task_group() as asking:
                    for sample in left:
                        await room.acquire()
                        asking.start_soon(ask, sample, partial(progress.advance, task))
    return kept.whole(sample.id for sample in samples)


@asynccontextmanager
async def speaking(wanted: Wanted) -> AsyncGenerator[Models]:
    """Run the model of a profile while the block runs; the profile `scripted` is the one without weights."""
    scripted_one = wanted.profile == SCRIPTED
    tokenizer = wanted.data / "tokenizer" if scripted_one else wanted.weights / wanted.profile
    starting = scripted(wanted, tokenizer) if scripted_one else model(wanted)
    served = await anyio.to_thread.run_sync(starting.__enter__)
    try:
        endpoints = {"llm_urls": served.url, "llm_tokenizer": tokenizer, "llm_profile": wanted.profile}
        async with open_models(ModelSettings.model_validate(endpoints)) as models:
            yield models
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(starting.__exit__, None, None, None)


@contextmanager
def scripted(wanted: Wanted, tokenizer: Path) -> Iterator[Model]:
    """Run the scripted model, which quotes the passage that fits best, while the block runs.

    Raises:
        ProductNotStarted: see its log.
    """
    log = wanted.data / "logs" / "scripted.err"
    command = [sys.executable, "-m", "llm_server.scripted", "--tokenizer-folder", str(tokenizer)]
    with child(command, log=log, environment=wanted.environment) as process:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise ProductNotStarted(f"the scripted model did not start: see {log}")
        yield Model(url=line.split()[1], pid=process.pid)


def checked(question: str, passages: Sequence[Passage], said: str) -> GroundingStream:
    """Return the checks that a turn puts an answer to, with all of it said."""
    settings = TurnSettings()
    checks = grounding_stream(question, passages, grounding=settings.grounding, contact=settings.contact)
    checks.feed(said)
    checks.close()
    return checks


class Recorder:
    """Asks as a turn does, and keeps every passage that was shown."""

    def __init__(self, models: Models, index: Index) -> None:
        fields = Settings.model_fields
        self.shown: dict[tuple[str, int, int], Shown] = {}
        self._models = models
        self._retrieval = Retrieval(index, RetrievalSettings(), load_glossary(), own_names=tuple(BANKS.values()))
        self._prompts = PromptBuilder(
            load_templates(),
            models.tokenizer,
            banks=BANKS,
            passage_tokens=fields["passage_tokens"].default,
        )

    # Nobody waits for a recording: a machine that is busy with other things is no fault.
    @stamina.retry(on=(IndexUnavailable, ModelUnavailable, Overloaded), attempts=20, timeout=900.0, wait_max=30.0)
    async def ask(self, sample: Sample) -> Spoken:
        """Return the evidence for a question and what the model said, as far as the product would have asked it."""
        screened = screen(sample.text)
        if screened.verdict is not Verdict.OK or excluded_topic(screened.text, tuple(BANKS.values())) is not None:
            return Spoken(id=sample.id)
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
        found = await self._retrieval.search(screened.text, earlier=sample.earlier, access=access)
        language = language_of(screened.text)
        prompt = self._prompts.build(
            screened.text,
            history=[Message(said.role, said.text) for said in sample.history],
            passages=[hit.passage for hit in found.hits],
            language=language,
        )
        unknown = await self._retrieval.unknown_share(screened.text, found)
        probes, held = await self._probes(found, prompt, unknown, language)
        said = await self._said(prompt) if held else None
        passages = [hit.passage for hit in found.hits[: prompt.passages]]
        checks = checked(screened.text, passages, said or "")
        return Spoken(
            id=sample.id,
            passages=tuple(map(self._keep, passages)),
            dense=tuple(round(hit.dense, 4) for hit in found.hits),
            terms=tuple(round(hit.terms, 4) for hit in found.hits),
            probes=tuple(round(probe, 4) for probe in probes),
            unknown=round(unknown, 4),
            wording=found.wording,
            said=said,
            repair=await self.choice(checks.quotes(found.wording), passages, screened.text, before=prompt.before),
        )

    async def choice(
        self, quoted: QuotedAnswer, passages: Sequence[Passage], question: str, *, before: Sequence[Message]
    ) -> tuple[tuple[str, float], ...]:
        """Return the quotes that a turn lets the model choose from, with its shares; nothing where it asks nothing."""
        if len(quoted.citations) < 2:
            return ()
        shares = await self._models.choice_probabilities(
            self._prompts.repair(
                question, before=before, excerpts=quoted.excerpts(passages), language=language_of(question)
            ),
            number_choices(len(quoted.citations)),
            conversation_id=uuid4().hex,
            cache_salt=TENANT,
            least_mass=LEAST_CHOICE_MASS,
        )
        quotes = (citation.quote for citation in quoted.citations)
        return tuple((quote, round(share, 4)) for quote, share in zip(quotes, shares, strict=True))

    async def _probes(
        self, found: SearchResult, prompt: Prompt, unknown: float, language: Language
    ) -> tuple[list[float], bool]:
        """Return the model's probabilities, passage by passage until one is enough, and whether one was."""
        settings = TurnSettings().answerability
        said: list[float] = []
        if answerability.nothing_near(found.hits, settings):
            return said, False
        for probe in prompt.probes:
            yes, _ = await self._models.choice_probabilities(
                probe, YES_OR_NO, conversation_id=uuid4().hex, cache_salt=TENANT
            )
            said.append(yes)
            if answerability.score(found.hits, said, unknown, language, settings) >= settings.threshold:
                return said, True
        return said, False

    async def _said(self, prompt: Prompt) -> str:
        text = ""
        stream = self._models.stream(
            prompt.answer,
            sampling=Sampling(max_tokens=TurnSettings().max_answer_tokens, temperature=TurnSettings().temperature),
            conversation_id=uuid4().hex,
            cache_salt=TENANT,
        )
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                text += delta.text if isinstance(delta, Delta) else ""
        return text

    def _keep(self, passage: Passage) -> tuple[str, int, int]:
        shown = Shown(
            document_id=passage.document_id,
            version=passage.version,
            n=passage.n,
            title=passage.title,
            section=passage.section,
            text=passage.text,
            language=passage.language,
            page=passage.page,
        )
        return self.shown.setdefault(shown.key, shown).key
