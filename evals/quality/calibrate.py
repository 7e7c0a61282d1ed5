"""Fits the answerability weights of chatbot/answerability.py to probes of a data set.

The probes are asked exactly as a turn asks them: same retrieval, prompts and words. Unanswerable questions are few, so
each answerable one is also probed without the documents that answer it: the passages found then are near and wrong. The
weights are fitted on every second question of each kind and evaluated on the others, which the fit has not seen.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import anyio
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from chatbot.answerability import AnswerabilitySettings, log_odds, nearness
from chatbot.errors import ModelUnavailable
from chatbot.models import YES_OR_NO, Models
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.questions import excluded_topic
from chatbot.retrieval import Retrieval, RetrievalSettings, SearchResult
from chatbot.settings import Settings
from chatbot.tokenizer import Message, RenderedChat
from evals.product import ProductNotStarted
from evals.quality.record import open_model
from evals.quality.retrieve import earlier_questions
from evals.quality.run import RunSpec, loaded_corpus, progress_bar
from evals.questions import TENANT, Dataset, Sample
from evals.scorers import holds_answer
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from knowledge.passage import Language, language_of

_RIDGE = 0.1
"""Pulls weights towards 0: about thirty questions a side would otherwise be separated by huge weights."""

WEIGHTS = ("bias", "first", "likeliest", "dense", "terms", "unknown", "english")
WITHOUT = "without_its_documents"
_WITHOUT_WEIGHT = 0.35
"""Against 1 for a question that is unanswerable by itself, which is about something that no document names."""

_ATTEMPTS, _PAUSE_SECONDS = 20, 5.0

Floats = NDArray[np.float64]


class ProbeEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence for one question; `held` is whether a passage of the prompt states a known answer."""

    id: str
    kind: str
    question: str
    language: str
    unanswerable: bool
    held: bool
    probabilities: tuple[float, ...]
    dense: tuple[float, ...]
    terms: tuple[float, ...]
    unknown: float = 0.0
    outside: bool = False
    seconds: float


async def probe_answerability(spec: RunSpec, console: Console) -> list[ProbeEvidence]:
    """Load the corpus, start the model and probe every question."""
    async with loaded_corpus(spec.dataset, spec.settings, spec.product.data, console) as (services, _):
        console.print(f"starting the model (profile {spec.product.profile})", highlight=False)
        async with open_model(spec.product) as models:
            prober = Prober(models, services.index)
            with progress_bar(console) as progress:
                samples = progress.track(spec.dataset.samples, description="probes")
                return [evidence for sample in samples for evidence in await prober.evidence(sample, spec.dataset)]


class Prober:
    """Asks the answerability probe as a turn does, without the rest of a turn."""

    def __init__(self, models: Models, index: Index) -> None:
        fields = Settings.model_fields
        banks: dict[Language, str] = {"ko": fields["bank_name_ko"].default, "en": fields["bank_name_en"].default}
        self._banks = tuple(banks.values())
        self._models = models
        settings = RetrievalSettings(passages=2 * RetrievalSettings().passages)
        self._retrieval = Retrieval(index, settings, load_glossary(), own_names=self._banks)
        self._prompts = PromptBuilder(
            load_templates(),
            models.tokenizer,
            banks=banks,
            passage_tokens=fields["passage_tokens"].default,
        )

    async def evidence(self, sample: Sample, dataset: Dataset) -> list[ProbeEvidence]:
        """Return a question's evidence and, where it is answerable, that without the documents that answer it."""
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
        earlier = await earlier_questions(self._retrieval, sample, access)
        result = await self._retrieval.search(sample.text, earlier=earlier, access=access)
        limit = RetrievalSettings().passages
        evidence = [await self._probe(sample, msgspec.structs.replace(result, hits=result.hits[:limit]))]
        right = dataset.right_documents(sample)
        others = tuple(hit for hit in result.hits if hit.passage.document_id not in right)[:limit]
        answered = any(holds_answer(hit.passage.text, sample.answers) for hit in others)
        if others and not (sample.unanswerable or answered):
            without = msgspec.structs.replace(sample, id=f"{sample.id}-without", kind=WITHOUT, unanswerable=True)
            evidence.append(await self._probe(without, msgspec.structs.replace(result, hits=others)))
        return evidence

    async def _probe(self, sample: Sample, result: SearchResult) -> ProbeEvidence:
        began = anyio.current_time()
        question, language = result.standalone or sample.text, language_of(sample.text)
        prompt = self._prompts.build(
            question,
            history=[] if result.standalone else [Message(turn.role, turn.text) for turn in sample.history],
            passages=[hit.passage for hit in result.hits],
            language=language,
        )
        in_prompt = result.hits[: prompt.passages]
        return ProbeEvidence(
            id=sample.id,
            kind=sample.kind,
            question=sample.text,
            language=language,
            unanswerable=sample.unanswerable,
            held=any(holds_answer(hit.passage.text, sample.answers) for hit in in_prompt),
            probabilities=tuple([await self._probability(ids) for ids in prompt.probes_ids]),
            dense=tuple(hit.dense for hit in result.hits),
            terms=tuple(hit.terms for hit in result.hits),
            unknown=await self._retrieval.unknown_share(question, result),
            outside=excluded_topic(sample.text, self._banks) is not None,
            seconds=anyio.current_time() - began,
        )

    async def _probability(self, prompt_ids: Sequence[int]) -> float:
        """Return the probability of "yes"; no customer waits, so a busy machine is retried.

        Raises:
            ProductNotStarted: the model fails every time.
        """
        for _ in range(_ATTEMPTS):
            try:
                yes, _ = await self._models.choice_probabilities(
                    RenderedChat(prompt_ids),
                    YES_OR_NO,
                    conversation_id=uuid4().hex,
                    cache_salt=TENANT,
                )
            except ModelUnavailable:
                await anyio.sleep(_PAUSE_SECONDS)
            else:
                return yes
        raise ProductNotStarted("the model does not answer the probe")


def features(probe: ProbeEvidence) -> list[float]:
    """Return what chatbot/answerability.py weighs, in the order of `WEIGHTS`."""
    return [
        1.0,
        log_odds(probe.probabilities[0]),
        log_odds(max(probe.probabilities)),
        nearness(max(probe.dense)),
        math.log1p(max(probe.terms)),
        probe.unknown,
        float(probe.language == "en"),
    ]


def fit(probes: Sequence[ProbeEvidence]) -> AnswerabilitySettings:
    """Return the weights of a logistic regression; both classes count the same, however many questions they have."""
    probes = [probe for probe in probes if not probe.outside]  # chatbot/questions/scope.py refuses the others
    x = np.array([features(probe) for probe in probes])
    y = np.array([0.0 if probe.unanswerable else 1.0 for probe in probes])
    counts = np.array([_WITHOUT_WEIGHT if probe.kind == WITHOUT else 1.0 for probe in probes])
    unanswerable = max((counts * (1 - y)).sum(), 1)
    balance = np.where(y == 1, 0.5 / max(y.sum(), 1), 0.5 * counts / unanswerable) * len(y)
    ridge = np.diag([0.0, *[_RIDGE] * (x.shape[1] - 1)])
    weights: Floats = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's method; it converges in about eight steps
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (balance * (p - y)) + ridge @ weights
        curvature = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge
        weights = weights - np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
    return AnswerabilitySettings(**dict(zip(WEIGHTS, (round(float(weight), 3) for weight in weights), strict=True)))


def split_halves(probes: Sequence[ProbeEvidence]) -> tuple[list[ProbeEvidence], list[ProbeEvidence]]:
    """Return every second question of each kind, and the others."""
    ordered = sorted(probes, key=lambda probe: (probe.unanswerable, probe.kind, probe.id))
    return ordered[::2], ordered[1::2]


def answer_probability(probe: ProbeEvidence, settings: AnswerabilitySettings) -> float:
    """Return the fitted probability that the passages hold the answer."""
    if probe.outside:
        return 0.0
    z = sum(getattr(settings, name) * value for name, value in zip(WEIGHTS, features(probe), strict=True))
    return 1 / (1 + math.exp(-z))


def auroc(pairs: Sequence[tuple[bool, float]]) -> float:
    """Return the area under the ROC curve of (answerable, score) pairs; ties count half."""
    positive = [score for answerable, score in pairs if answerable]
    negative = [score for answerable, score in pairs if not answerable]
    wins = sum((a > b) + (a == b) / 2 for a in positive for b in negative)
    return wins / (len(positive) * len(negative)) if positive and negative else math.nan


def outcome_line(probes: Sequence[ProbeEvidence], settings: AnswerabilitySettings, name: str) -> str:
    """Return one line on how the settings separate these questions."""
    near_misses = [answer_probability(probe, settings) for probe in probes if probe.kind == WITHOUT]
    pairs = [(not probe.unanswerable, answer_probability(probe, settings)) for probe in probes if probe.kind != WITHOUT]
    answered = [score >= settings.threshold for answerable, score in pairs if answerable]
    refused = [score < settings.threshold for answerable, score in pairs if not answerable]
    missed = sum(score < settings.threshold for score in near_misses)
    shares = f"answered {sum(answered)}/{len(answered)}, refused {sum(refused)}/{len(refused)}"
    shares += f", refused without their documents {missed}/{len(near_misses)}"
    return f"{name}: {shares}, AUROC {auroc(pairs):.3f}"


def fit_report(probes: Sequence[ProbeEvidence]) -> str:
    """Return a line each for the present settings, the fit of one half on both halves, and the fit of all."""
    fitted, held_out = split_halves(probes)
    half, whole, present = fit(fitted), fit(probes), AnswerabilitySettings()
    return "\n".join(
        [
            outcome_line(probes, present, f"the present settings {weights_text(present)}"),
            outcome_line(fitted, half, f"fitted on one half {weights_text(half)}, on it"),
            outcome_line(held_out, half, "the same on the other half"),
            outcome_line(probes, whole, f"fitted on all {weights_text(whole)}"),
        ]
    )


def weights_text(settings: AnswerabilitySettings) -> str:
    """Return the weights as `name=value` pairs."""
    return " ".join(f"{name}={getattr(settings, name)}" for name in WEIGHTS)


def write_probes(probes: Sequence[ProbeEvidence], path: Path) -> None:
    """Write the evidence as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(probes), indent=1))


def read_probes(path: Path) -> list[ProbeEvidence]:
    """Read the evidence of `write_probes`."""
    return msgspec.json.decode(path.read_bytes(), type=list[ProbeEvidence])
