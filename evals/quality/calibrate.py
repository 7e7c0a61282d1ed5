"""Do the passages hold the answer? Records the evidence for every question and fits chatbot/answerability.py.

The probes are asked exactly as a turn asks them: same retrieval, same prompts, same words. Unanswerable questions are
few, so each answerable one is asked once more as if the documents that answer it were not there: what is found then is
near and wrong. Fitted on every second question of each kind, checked on the others, so that what is reported was not
seen by the fit.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import anyio
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from chatbot.answerability import AnswerabilitySettings, log_odds
from chatbot.errors import ModelUnavailable
from chatbot.models import YES_OR_NO, Models, ModelSettings, open_models
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.questions import excluded_topic
from chatbot.retrieval import Retrieval, RetrievalSettings, SearchResult
from chatbot.settings import Settings
from chatbot.tokenizer import Message, RenderedChat
from evals.product import ProductNotStarted, model
from evals.quality.run import Errand, bar, loaded
from evals.questions import TENANT, Dataset, Sample
from evals.scorers import holds_answer
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from knowledge.passage import Language, language_of

_RIDGE = 0.1
"""Pulls weights towards 0: thirty-odd questions a side would otherwise be separated by huge ones."""

WEIGHTS = ("bias", "first", "likeliest", "terms", "unknown", "english")
WITHOUT = "without_its_documents"
_WITHOUT_COUNTS = 0.35
"""Against a question that nobody can answer: such a one is about something that the bank's documents do name."""

_TRIES, _PAUSE = 20, 5.0

Floats = NDArray[np.float64]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence for one question; `held` tells whether a passage that the model saw states a known answer."""

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


async def probe(errand: Errand, console: Console) -> list[Probe]:
    """Load the corpus, start the model and probe every question."""
    errands = loaded(errand.dataset, errand.settings, errand.wanted.data, console)
    async with errands as (services, _):
        console.print(f"starting the model (profile {errand.wanted.profile})", highlight=False)
        starting = model(errand.wanted)
        served = await anyio.to_thread.run_sync(starting.__enter__)
        try:
            endpoints = ModelSettings.model_validate(
                {
                    "llm_urls": served.url,
                    "llm_tokenizer": errand.wanted.weights / errand.wanted.profile,
                    "llm_profile": errand.wanted.profile,
                }
            )
            async with open_models(endpoints) as models:
                prober = Prober(models, services.index)
                with bar(console) as progress:
                    samples = progress.track(errand.dataset.samples, description="probes")
                    return [one for sample in samples for one in await prober.probes(sample, errand.dataset)]
        finally:
            starting.__exit__(None, None, None)


class Prober:
    """Asks the probe of a turn without the rest of it."""

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

    async def probes(self, sample: Sample, dataset: Dataset) -> list[Probe]:
        """Return the evidence for one question, and where it is answerable, for it without the documents that do."""
        access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
        found = await self._retrieval.search(sample.text, earlier=sample.earlier, access=access)
        shown = RetrievalSettings().passages
        probes = [await self._probe(sample, replace(found, hits=found.hits[:shown]))]
        right = dataset.right_documents(sample)
        rest = tuple(hit for hit in found.hits if hit.passage.document_id not in right)[:shown]
        told = any(holds_answer(hit.passage.text, sample.answers) for hit in rest)
        if rest and not (sample.unanswerable or told):
            without = msgspec.structs.replace(sample, id=f"{sample.id}-without", kind=WITHOUT, unanswerable=True)
            probes.append(await self._probe(without, replace(found, hits=rest)))
        return probes

    async def _probe(self, sample: Sample, found: SearchResult) -> Probe:
        now = anyio.current_time()
        language = language_of(sample.text)
        prompt = self._prompts.build(
            sample.text,
            history=[Message(said.role, said.text) for said in sample.history],
            passages=[hit.passage for hit in found.hits],
            language=language,
        )
        shown = found.hits[: prompt.passages]
        return Probe(
            id=sample.id,
            kind=sample.kind,
            question=sample.text,
            language=language,
            unanswerable=sample.unanswerable,
            held=any(holds_answer(hit.passage.text, sample.answers) for hit in shown),
            probabilities=tuple([await self._probability(ids) for ids in prompt.probes_ids]),
            dense=tuple(hit.dense for hit in found.hits),
            terms=tuple(hit.terms for hit in found.hits),
            unknown=await self._retrieval.unknown_share(sample.text, found),
            outside=excluded_topic(sample.text, self._banks) is not None,
            seconds=anyio.current_time() - now,
        )

    async def _probability(self, prompt_ids: Sequence[int]) -> float:
        """Ask until the model answers: here nobody waits, so a machine that is busy with other things is no fault."""
        for _ in range(_TRIES):
            try:
                yes, _ = await self._models.choice_probabilities(
                    RenderedChat(prompt_ids),
                    YES_OR_NO,
                    conversation_id=uuid4().hex,
                    cache_salt=TENANT,
                )
            except ModelUnavailable:
                await anyio.sleep(_PAUSE)
            else:
                return yes
        raise ProductNotStarted("the model does not answer the probe")


def evidence(probe: Probe) -> list[float]:
    """Return what chatbot/answerability.py weighs, in the order of `WEIGHTS`."""
    return [
        1.0,
        log_odds(probe.probabilities[0]),
        log_odds(max(probe.probabilities)),
        math.log1p(max(probe.terms)),
        probe.unknown,
        float(probe.language == "en"),
    ]


def fit(probes: Sequence[Probe]) -> AnswerabilitySettings:
    """Return logistic weights: each side counts the same, however many questions it has."""
    probes = [probe for probe in probes if not probe.outside]  # chatbot/questions/scope.py has refused the others
    x = np.array([evidence(probe) for probe in probes])
    y = np.array([0.0 if probe.unanswerable else 1.0 for probe in probes])
    counts = np.array([_WITHOUT_COUNTS if probe.kind == WITHOUT else 1.0 for probe in probes])
    no = max((counts * (1 - y)).sum(), 1)
    balance = np.where(y == 1, 0.5 / max(y.sum(), 1), 0.5 * counts / no) * len(y)
    ridge = np.diag([0.0, *[_RIDGE] * (x.shape[1] - 1)])
    weights: Floats = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's steps; it converges in about eight
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (balance * (p - y)) + ridge @ weights
        curvature = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge
        weights = weights - np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
    return AnswerabilitySettings(**dict(zip(WEIGHTS, (round(float(weight), 3) for weight in weights), strict=True)))


def halves(probes: Sequence[Probe]) -> tuple[list[Probe], list[Probe]]:
    """Return every second question of each kind, and the others."""
    ordered = sorted(probes, key=lambda probe: (probe.unanswerable, probe.kind, probe.id))
    return ordered[::2], ordered[1::2]


def judged(probe: Probe, settings: AnswerabilitySettings) -> float:
    """Return the fitted probability that the passages hold the answer."""
    if probe.outside:
        return 0.0
    z = sum(getattr(settings, name) * value for name, value in zip(WEIGHTS, evidence(probe), strict=True))
    return 1 / (1 + math.exp(-z))


def auroc(pairs: Sequence[tuple[bool, float]]) -> float:
    """Return how often an answerable question scores above an unanswerable one."""
    yes = [score for answerable, score in pairs if answerable]
    no = [score for answerable, score in pairs if not answerable]
    wins = sum((a > b) + (a == b) / 2 for a in yes for b in no)
    return wins / (len(yes) * len(no)) if yes and no else math.nan


def outcome(probes: Sequence[Probe], settings: AnswerabilitySettings, name: str) -> str:
    """Return a line on how these questions would have been told apart."""
    near_misses = [judged(probe, settings) for probe in probes if probe.kind == WITHOUT]
    pairs = [(not probe.unanswerable, judged(probe, settings)) for probe in probes if probe.kind != WITHOUT]
    answered = [score >= settings.threshold for answerable, score in pairs if answerable]
    refused = [score < settings.threshold for answerable, score in pairs if not answerable]
    missed = sum(score < settings.threshold for score in near_misses)
    shares = f"answered {sum(answered)}/{len(answered)}, refused {sum(refused)}/{len(refused)}"
    shares += f", refused without their documents {missed}/{len(near_misses)}"
    return f"{name}: {shares}, AUROC {auroc(pairs):.3f}"


def fitted(probes: Sequence[Probe]) -> str:
    """Return the fit in words: by itself, on the half it has seen, on the half it has not, and on all."""
    seen, unseen = halves(probes)
    half, whole = fit(seen), fit(probes)
    alone = AnswerabilitySettings()
    return "\n".join(
        [
            outcome(probes, alone, f"the present settings {described(alone)}"),
            outcome(seen, half, f"fitted on one half {described(half)}, on it"),
            outcome(unseen, half, "the same on the other half"),
            outcome(probes, whole, f"fitted on all {described(whole)}"),
        ]
    )


def described(settings: AnswerabilitySettings) -> str:
    """Return the weights as they are set."""
    return " ".join(f"{name}={getattr(settings, name)}" for name in WEIGHTS)


def write_probes(probes: Sequence[Probe], path: Path) -> None:
    """Write the evidence as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(probes), indent=1))


def read_probes(path: Path) -> list[Probe]:
    """Read what `write_probes` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=list[Probe])
