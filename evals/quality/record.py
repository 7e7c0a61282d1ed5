"""Record a model's answers to the questions of a data set, asked exactly as in a turn.

For `evals gate` the model is asked only when a turn would ask it. For `evals calibrate` it is asked every question,
however unlikely an answer is, since another threshold may let the question through; each answerable question is also
probed without the documents that answer it, so that its passages are near but wrong.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import anyio
import msgspec
import stamina
from pydantic import SecretStr, ValidationError
from rich.console import Console

from chatbot import answerability
from chatbot.answerability import UNCALIBRATED_WEIGHTS
from chatbot.calibration import read_calibration
from chatbot.chat import Message
from chatbot.errors import IndexUnavailable, ModelUnavailable, Overloaded
from chatbot.models import (
    LEAST_CHOICE_MASS,
    UNKNOWN_MODEL,
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
from chatbot.quotes import close_candidates, rank
from chatbot.retrieval import PASSAGES, Retrieval, SearchResult
from chatbot.services import TurnSettings
from chatbot.settings import Settings
from chatbot.turns import CHOSEN_FROM, choice_prompts
from evals.product import ProductNotStarted, ProductSpec, run_model, run_scripted_model, started_part
from evals.quality.retrieve import earlier_questions
from evals.quality.run import RunSpec, loaded_corpus, progress_bar
from evals.questions import (
    TENANT,
    Dataset,
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    Recording,
    RecordingBroken,
    RecordingHeader,
    Sample,
    header_of,
    recording_header,
    without_documents,
)
from evals.sample_bank import sample_banks
from evals.scorers import holds_answer
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.bank import Banks, read_banks
from knowledge.identity import AuthSettings
from knowledge.index import Index
from knowledge.passage import Hit, Language, Passage, language_of

SCRIPTED = "scripted"
ASKS_ALL = UNCALIBRATED_WEIGHTS.model_copy(update={"threshold": 0.0})
"""One probe for each question, then an answer whatever the probe's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBank:
    """A bank to calibrate for, and its model endpoint if it has one."""

    banks: Banks
    endpoint: ModelSettings | None


def own_bank() -> OwnBank:
    """Return the bank from the chatbot's environment.

    Raises:
        ProductNotStarted: a variable has a value that the chatbot rejects.
    """
    try:
        # Required settings that are not used, since no customer is served.
        redis_url, audit_key = SecretStr("redis://unused"), SecretStr("unused" * 3)
        auth = AuthSettings(issuer="unused", public_key_file=Path("unused"))
        settings = Settings(redis_url=redis_url, audit_key=audit_key, auth=auth)
        has_endpoint = settings.models_file is not None or bool(settings.llm_urls)
        return OwnBank(banks=read_banks(settings.bank_file), endpoint=settings.models if has_endpoint else None)
    except ValidationError as exc:
        errors = "; ".join(f"{'__'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in exc.errors())
        raise ProductNotStarted(f"the environment is not the chatbot's: {errors}") from exc


async def record(
    spec: RunSpec, console: Console, *, part: Path, at_once: int, calibrated_bank: OwnBank | None = None
) -> Recording:
    """Load the corpus, start the model and ask it every current question, `at_once` of them concurrently.

    Answers of the same recording in the file `part` are reused. With `calibrated_bank`, near misses are recorded too.
    """
    samples = [sample for sample in spec.dataset.samples if sample.as_of is None]
    async with loaded_corpus(spec.dataset, spec.settings, spec.product.data, console) as (services, corpus):
        endpoint = calibrated_bank.endpoint if calibrated_bank else None
        if endpoint is None:
            console.print(f"starting the model (profile {spec.product.profile})", highlight=False)
        async with open_model(spec.product, endpoint) as models:
            recorder = Recorder(models, services.index, calibrated_bank=calibrated_bank, entries=corpus.entries)
            header = recording_header(
                spec.dataset, model=models.model, profile=spec.product.profile, embedder=services.index.embedder
            )
            if calibrated_bank:
                require_same_header(part, header)
            recording = PartialRecording(part, header)
            missing = [sample for sample in samples if sample.id not in recording.answers]
            slots = anyio.Semaphore(at_once)

            async def ask(sample: Sample, advance: Callable[[], None]) -> None:
                try:
                    near_miss = await recorder.near_miss(sample, spec.dataset) if calibrated_bank else None
                    if near_miss is not None:
                        recording.append(near_miss, recorder.passages)
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
    return recording.recording_of(sample.id for sample in samples)


def require_same_header(path: Path, header: RecordingHeader) -> None:
    """Refuse to replace a recording of another model, prompt or corpus.

    Raises:
        RecordingBroken: the file holds such a recording.
    """
    former = header_of(path) if path.exists() else header
    if former != header:
        raise RecordingBroken(
            f"{path} was recorded as {former}, not as {header}: move it away, or name another --output"
        )


@asynccontextmanager
async def open_model(spec: ProductSpec, endpoint: ModelSettings | None = None) -> AsyncGenerator[Models]:
    """Yield the models of an endpoint, or run a profile's model while the block runs (`scripted` needs no weights).

    Raises:
        ProductNotStarted: the endpoint does not answer, or the model did not start.
    """
    if endpoint is not None:
        async with open_models(endpoint) as models:
            if models.model == UNKNOWN_MODEL:
                raise ProductNotStarted("no endpoint of LLM_URLS or MODELS_FILE answers")
            yield models
        return
    is_scripted = spec.profile == SCRIPTED
    async with started_part(run_scripted_model(spec) if is_scripted else run_model(spec)) as model:
        settings = {"llm_urls": model.url, "llm_profile": spec.profile}
        async with open_models(ModelSettings.model_validate(settings)) as models:
            yield models


class Recorder:
    """Asks questions as a turn does, and collects the passages of all prompts by key.

    `entries` maps a document's id in the index to its id in the data set, if they differ.
    """

    def __init__(
        self,
        models: Models,
        index: Index,
        *,
        calibrated_bank: OwnBank | None = None,
        entries: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.passages: dict[tuple[str, int, int], RecordedPassage] = {}
        self._models = models
        self._index = index
        self._entries = entries
        banks = calibrated_bank.banks if calibrated_bank else sample_banks()
        self._bank = banks.first
        self._weights = ASKS_ALL if calibrated_bank else read_calibration(None).answerability
        self._retrieval = Retrieval(index, banks)
        self._wider_retrieval = Retrieval(index, banks, passages=2 * PASSAGES)
        passage_tokens = Settings.model_fields["passage_tokens"].default
        self._prompts = PromptBuilder(load_templates(), models.counter, passage_tokens=passage_tokens)

    # A recording is not time-critical, so retry on a busy machine.
    @stamina.retry(on=(IndexUnavailable, ModelUnavailable, Overloaded), attempts=20, timeout=900.0, wait_max=30.0)
    async def ask(self, sample: Sample) -> RecordedAnswer:
        """Return the evidence for a question, and the model's answer if a turn would ask for one."""
        screened = self._screened_question(sample)
        if screened is None:
            return RecordedAnswer(id=sample.id)
        result = await self._search(self._retrieval, screened, sample)
        question, language = result.standalone or screened, language_of(screened)
        prompt = self._prompt(question, result, sample)
        unknown = await self._retrieval.unknown_share(question, result, tenant=TENANT)
        probes, is_answerable = await self._probes(result, prompt, unknown, language)
        text = await self._answer(prompt) if is_answerable else None
        passages = [hit.passage for hit in result.hits[: prompt.passages]]
        return RecordedAnswer(
            id=sample.id,
            passages=tuple(self._add_passage(passage) for passage in passages),
            dense=tuple(round(hit.dense, 4) for hit in result.hits),
            terms=tuple(round(hit.terms, 4) for hit in result.hits),
            scores=tuple(round(hit.score, 4) for hit in result.hits),
            probes=tuple(round(probe, 4) for probe in probes),
            unknown=round(unknown, 4),
            wording=result.query,
            standalone=result.standalone,
            model_text=text,
            choices=await self.choices(question, result.hits[: prompt.passages], prompt.before),
        )

    @stamina.retry(on=(IndexUnavailable, ModelUnavailable, Overloaded), attempts=20, timeout=900.0, wait_max=30.0)
    async def near_miss(self, sample: Sample, dataset: Dataset) -> RecordedAnswer | None:
        """Return the evidence for an answerable question without the documents that answer it.

        None if no document answers it, if no other passage is found, if one of these answers too, or if a turn would
        refuse the question. No answer is recorded, because none could be right.
        """
        right_documents = dataset.right_documents(sample)
        screened = self._screened_question(sample)
        if sample.unanswerable or not right_documents or screened is None:
            return None
        result = await self._search(self._wider_retrieval, screened, sample)
        others = tuple(hit for hit in result.hits if self._entry(hit) not in right_documents)[:PASSAGES]
        if not others or any(holds_answer(hit.passage.text, sample.answers) for hit in others):
            return None
        result = msgspec.structs.replace(result, hits=others)
        question = result.standalone or screened
        unknown = await self._retrieval.unknown_share(question, result, tenant=TENANT)
        prompt = self._prompt(question, result, sample)
        probes, _ = await self._probes(result, prompt, unknown, language_of(screened))
        return RecordedAnswer(
            id=without_documents(sample.id),
            passages=tuple(self._add_passage(hit.passage) for hit in others[: prompt.passages]),
            dense=tuple(round(hit.dense, 4) for hit in others),
            terms=tuple(round(hit.terms, 4) for hit in others),
            probes=tuple(round(probe, 4) for probe in probes),
            unknown=round(unknown, 4),
        )

    def _entry(self, hit: Hit) -> str:
        return self._entries.get(hit.passage.document_id, hit.passage.document_id)

    def _screened_question(self, sample: Sample) -> str | None:
        """Return the question as a turn would ask it; None if screening or scope refuses it."""
        screened = screen(sample.text)
        is_excluded = excluded_topic(screened.text, self._bank.own_names) is not None
        return None if is_excluded or screened.verdict is not Verdict.OK else screened.text

    async def _search(self, retrieval: Retrieval, question: str, sample: Sample) -> SearchResult:
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
        earlier = await earlier_questions(retrieval, sample, access)
        return await retrieval.search(question, earlier=earlier, access=access)

    def _prompt(self, question: str, result: SearchResult, sample: Sample) -> Prompt:
        return self._prompts.build(
            question,
            bank=self._bank.name(language_of(sample.text)),
            history=[] if result.standalone else [Message(turn.role, turn.text) for turn in sample.history],
            passages=[hit.passage for hit in result.hits],
            language=language_of(sample.text),
        )

    async def choices(
        self, question: str, hits: Sequence[Hit], before: Sequence[Message]
    ) -> tuple[tuple[float, ...], ...]:
        """Return the model's probabilities for the top units in both orders; empty if the ranking is clear."""
        ranked = rank(question, hits, language_of(question))
        if len(close_candidates(ranked)) < 2:
            return ()
        ranked = ranked[:CHOSEN_FROM]
        prompts = choice_prompts(
            ranked,
            self._prompts,
            question=question,
            before=before,
            passages=[hit.passage for hit in hits],
            language=language_of(question),
        )
        return tuple(
            [
                await self._models.choice_probabilities(
                    prompt,
                    number_choices(len(ranked)),
                    conversation_id=uuid4().hex,
                    cache_salt=TENANT,
                    least_mass=LEAST_CHOICE_MASS,
                )
                for prompt in prompts
            ]
        )

    async def _probes(
        self, result: SearchResult, prompt: Prompt, unknown: float, language: Language
    ) -> tuple[list[float], bool]:
        """Return the probabilities of "yes" from the probes of a turn, and whether they suffice."""
        weights = self._weights
        probabilities: list[float] = []
        if answerability.nothing_near(result.hits, weights):
            return probabilities, False
        for probe in prompt.probes:
            yes, _ = await self._models.choice_probabilities(
                probe, YES_OR_NO, conversation_id=uuid4().hex, cache_salt=TENANT
            )
            probabilities.append(yes)
            score = answerability.score(result.hits, probabilities, unknown, language, weights)
            if score >= weights.threshold or not weights.likeliest:  # more probes change nothing
                return probabilities, score >= weights.threshold
        return probabilities, False

    async def _answer(self, prompt: Prompt) -> str:
        settings = TurnSettings()
        stream = self._models.stream(
            prompt.answer,
            sampling=Sampling(
                max_tokens=settings.max_answer_tokens,
                thinking_tokens=settings.thinking_tokens if self._models.may_think else 0,
                temperature=settings.temperature,
            ),
            conversation_id=uuid4().hex,
            cache_salt=TENANT,
        )
        async with aclosing(stream) as deltas:
            return "".join([delta.text async for delta in deltas if isinstance(delta, Delta)])

    def _add_passage(self, passage: Passage) -> tuple[str, int, int]:
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
