"""Records a model's answers to the questions of a data set, asked exactly as a turn asks it, for `evals gate`."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import stamina
from rich.console import Console

from chatbot import answerability
from chatbot.errors import IndexUnavailable, ModelUnavailable, Overloaded
from chatbot.grounding import GroundingStream, QuotedAnswer
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
from evals.product import ProductSpec, run_model, run_scripted_model, scripted_tokenizer
from evals.quality.answer_checks import checked_answer
from evals.quality.retrieve import earlier_questions
from evals.quality.run import RunSpec, loaded_corpus, progress_bar
from evals.questions import (
    TENANT,
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    Recording,
    Sample,
    recording_header,
)
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from knowledge.passage import Language, Passage, language_of

SCRIPTED = "scripted"
BANKS: dict[Language, str] = {"ko": "한빛은행", "en": "Hanbit Bank"}


async def record(spec: RunSpec, console: Console, *, part: Path, at_once: int) -> Recording:
    """Load the corpus, start the model and ask it every question of today, `at_once` of them side by side.

    Answers that the file `part` holds of the same recording are kept.
    """
    samples = [sample for sample in spec.dataset.samples if sample.as_of is None]
    async with loaded_corpus(spec.dataset, spec.settings, spec.product.data, console) as (services, _):
        console.print(f"starting the model (profile {spec.product.profile})", highlight=False)
        async with open_model(spec.product) as models:
            recorder = Recorder(models, services.index)
            header = recording_header(spec.dataset, model=models.model, profile=spec.product.profile)
            recording = PartialRecording(part, header)
            missing = [sample for sample in samples if sample.id not in recording.answers]
            slots = anyio.Semaphore(at_once)

            async def ask(sample: Sample, advance: Callable[[], None]) -> None:
                try:
                    recording.append(await recorder.ask(sample), recorder.passages)
                    advance()
                finally:
                    slots.release()

            with progress_bar(console) as progress:
                task = progress.add_task("answers", total=len(samples), completed=len(samples) - len(missing))
                async with anyio.create_task_group() as tasks:
                    for sample in missing:
                        await slots.acquire()
                        tasks.start_soon(ask, sample, partial(progress.advance, task))
    return recording.whole(sample.id for sample in samples)


@asynccontextmanager
async def open_model(spec: ProductSpec) -> AsyncGenerator[Models]:
    """Run the model of a profile while the block runs; the profile `scripted` needs no weights."""
    is_scripted = spec.profile == SCRIPTED
    tokenizer = scripted_tokenizer(spec) if is_scripted else spec.weights / spec.profile
    starting = run_scripted_model(spec) if is_scripted else run_model(spec)
    model = await anyio.to_thread.run_sync(starting.__enter__)
    try:
        settings = {"llm_urls": model.url, "llm_tokenizer": tokenizer, "llm_profile": spec.profile}
        async with open_models(ModelSettings.model_validate(settings)) as models:
            yield models
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(starting.__exit__, None, None, None)


class Recorder:
    """Asks as a turn does, and keeps the passages of every prompt, by key."""

    def __init__(self, models: Models, index: Index) -> None:
        self.passages: dict[tuple[str, int, int], RecordedPassage] = {}
        self._models = models
        self._retrieval = Retrieval(index, RetrievalSettings(), load_glossary(), own_names=tuple(BANKS.values()))
        self._prompts = PromptBuilder(
            load_templates(),
            models.tokenizer,
            banks=BANKS,
            passage_tokens=Settings.model_fields["passage_tokens"].default,
        )

    # No customer waits for a recording, so a busy machine is retried.
    @stamina.retry(on=(IndexUnavailable, ModelUnavailable, Overloaded), attempts=20, timeout=900.0, wait_max=30.0)
    async def ask(self, sample: Sample) -> RecordedAnswer:
        """Return the evidence for a question, and the model's answer where a turn would ask for one."""
        screened = screen(sample.text)
        if screened.verdict is not Verdict.OK or excluded_topic(screened.text, tuple(BANKS.values())) is not None:
            return RecordedAnswer(id=sample.id)
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
        earlier = await earlier_questions(self._retrieval, sample, access)
        result = await self._retrieval.search(screened.text, earlier=earlier, access=access)
        question, language = result.standalone or screened.text, language_of(screened.text)
        prompt = self._prompts.build(
            question,
            history=[] if result.standalone else [Message(turn.role, turn.text) for turn in sample.history],
            passages=[hit.passage for hit in result.hits],
            language=language,
        )
        unknown = await self._retrieval.unknown_share(question, result)
        probes, is_answerable = await self._probes(result, prompt, unknown, language)
        text = await self._answer(prompt) if is_answerable else None
        passages = [hit.passage for hit in result.hits[: prompt.passages]]
        checks = checked_today(question, passages, text or "")
        return RecordedAnswer(
            id=sample.id,
            passages=tuple(map(self._keep, passages)),
            dense=tuple(round(hit.dense, 4) for hit in result.hits),
            terms=tuple(round(hit.terms, 4) for hit in result.hits),
            probes=tuple(round(probe, 4) for probe in probes),
            unknown=round(unknown, 4),
            wording=result.query,
            standalone=result.standalone,
            said=text,
            repair=await self.choice(checks.quotes(result.query), passages, question, before=prompt.before),
        )

    async def choice(
        self, quoted: QuotedAnswer, passages: Sequence[Passage], question: str, *, before: Sequence[Message]
    ) -> tuple[tuple[str, float], ...]:
        """Return the quotes that a turn lets the model choose from, each with its probability; none for one quote."""
        if len(quoted.citations) < 2:
            return ()
        probabilities = await self._models.choice_probabilities(
            self._prompts.repair(
                question, before=before, excerpts=quoted.excerpts(passages), language=language_of(question)
            ),
            number_choices(len(quoted.citations)),
            conversation_id=uuid4().hex,
            cache_salt=TENANT,
            least_mass=LEAST_CHOICE_MASS,
        )
        quotes = (citation.quote for citation in quoted.citations)
        return tuple((quote, round(probability, 4)) for quote, probability in zip(quotes, probabilities, strict=True))

    async def _probes(
        self, result: SearchResult, prompt: Prompt, unknown: float, language: Language
    ) -> tuple[list[float], bool]:
        """Return the probabilities of "yes", as a turn asks for them, and whether they are enough."""
        settings = TurnSettings().answerability
        probabilities: list[float] = []
        if answerability.nothing_near(result.hits, settings):
            return probabilities, False
        for probe in prompt.probes:
            yes, _ = await self._models.choice_probabilities(
                probe, YES_OR_NO, conversation_id=uuid4().hex, cache_salt=TENANT
            )
            probabilities.append(yes)
            score = answerability.score(result.hits, probabilities, unknown, language, settings)
            if answerability.settled(score, settings):
                return probabilities, score >= settings.threshold
        return probabilities, False

    async def _answer(self, prompt: Prompt) -> str:
        text, settings = "", TurnSettings()
        stream = self._models.stream(
            prompt.answer,
            sampling=Sampling(
                max_tokens=settings.max_answer_tokens,
                thinking_tokens=settings.thinking_tokens if self._models.think else 0,
                temperature=settings.temperature,
            ),
            conversation_id=uuid4().hex,
            cache_salt=TENANT,
        )
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                text += delta.text if isinstance(delta, Delta) else ""
        return text

    def _keep(self, passage: Passage) -> tuple[str, int, int]:
        recorded = RecordedPassage(
            document_id=passage.document_id,
            version=passage.version,
            n=passage.n,
            title=passage.title,
            section=passage.section,
            text=passage.text,
            language=passage.language,
            page=passage.page,
        )
        return self.passages.setdefault(recorded.key, recorded).key


def checked_today(question: str, passages: Sequence[Passage], text: str) -> GroundingStream:
    """Return the checks of a turn with today's settings, after all of an answer's text."""
    settings = TurnSettings()
    checks, _ = checked_answer(question, passages, text, grounding=settings.grounding, contact=settings.contact)
    return checks
