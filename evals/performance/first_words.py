"""Where the time to an answer's first words goes, step by step, when one customer asks at a time.

usage: python -m evals.performance.first_words [--dataset DIR] [--profile cpu] [--count 20]

The steps are those of a turn. `prefill` ends with the model's first token, `held back` with the first words that the
checks let through; `choosing` is what takes their place with `TURN__ANSWER=quote`. Each is 0 where a turn leaves it
out. Questions come from the data set in an order of their own, and each is asked once, so only the system's prompt is
cached.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import aclosing
from pathlib import Path
from random import Random
from statistics import median
from uuid import uuid4

import anyio
from rich.console import Console
from rich.table import Table

from chatbot.answerability import Evidence, evidence, evidence_of_search, score
from chatbot.calibration import read_calibration
from chatbot.events import Token
from chatbot.grounding import GroundingStream
from chatbot.models import LEAST_CHOICE_MASS, YES_OR_NO, Delta, Models, Sampling, number_choices
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.quotes import is_close, rank
from chatbot.retrieval import Retrieval
from chatbot.services import TurnSettings
from chatbot.settings import Settings as ChatSettings
from chatbot.turns import CHOSEN_FROM, choice_prompts
from evals.product import ProductSpec, interrupt_on_sigterm
from evals.quality import RunSpec, loaded_corpus, open_model
from evals.questions import HANBIT, TENANT, read_dataset
from evals.sample_bank import sample_banks
from ingest.settings import Settings
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.index import Index
from knowledge.passage import language_of
from telemetry.logs import configure_logs

STEPS = ("search", "probe", "prefill", "held back", "choosing")
WRITE, QUOTE = STEPS[:4], ("search", "probe", "choosing")


class Clock:
    """Adds what is since the last look to a step, in seconds."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = defaultdict(float)
        self._last = time.monotonic()

    def look(self, step: str) -> None:
        now = time.monotonic()
        self.steps[step] += now - self._last
        self._last = now


async def timed_answer(question: str, models: Models, index: Index) -> dict[str, float]:
    """Ask one question both ways; return the seconds of each step, none of `prefill` where nothing was shown."""
    language, settings, clock = language_of(question), TurnSettings(), Clock()
    banks = sample_banks()
    retrieval = Retrieval(index, banks)
    prompts = PromptBuilder(
        load_templates(),
        models.counter,
        passage_tokens=ChatSettings.model_fields["passage_tokens"].default,
    )
    access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
    result = await retrieval.search(question, earlier=(), access=access)
    clock.look("search")
    found = [hit.passage for hit in result.hits]
    prompt = prompts.build(question, bank=banks.first.name(language), history=[], passages=found, language=language)
    passages, conversation = found[: prompt.passages], uuid4().hex
    weights, unknown = (
        read_calibration(None).answerability,
        await retrieval.unknown_share(question, result, tenant=TENANT),
    )
    worth = evidence_of_search(result.hits, unknown, language, weights)
    if worth is None:
        yes, _ = await models.choice_probabilities(
            prompt.probes[0], YES_OR_NO, conversation_id=conversation, cache_salt=TENANT
        )
        worth = evidence(score(result.hits, [yes], unknown, language, weights), weights)
    clock.look("probe")
    checks = GroundingStream(passages, question=question, language=language, bank=banks.first)
    sampling = Sampling(max_tokens=settings.max_answer_tokens, thinking_tokens=0, temperature=settings.temperature)
    step = "prefill"
    async with aclosing(
        models.stream(prompt.answer, sampling=sampling, conversation_id=conversation, cache_salt=TENANT)
    ) as deltas:
        async for delta in deltas:
            clock.look(step)
            step = "held back"
            if isinstance(delta, Delta) and any(isinstance(event, Token) for event in checks.feed(delta.text)):
                break
    clock.look(step)
    ranked = rank(question, result.hits[: prompt.passages], language)
    if worth is Evidence.CERTAIN and is_close(ranked):
        for asked in choice_prompts(
            ranked[:CHOSEN_FROM],
            prompts,
            question=question,
            before=prompt.before,
            passages=passages,
            language=language,
        ):
            await models.choice_probabilities(
                asked,
                number_choices(len(ranked[:CHOSEN_FROM])),
                least_mass=LEAST_CHOICE_MASS,
                conversation_id=conversation,
                cache_salt=TENANT,
            )
    clock.look("choosing")
    return clock.steps


async def measure(spec: RunSpec, count: int, console: Console) -> list[dict[str, float]]:
    """Return the seconds of each step for so many answerable questions without a conversation before them."""
    alone = [sample.text for sample in spec.dataset.samples if not sample.unanswerable and not sample.history]
    drawn = Random(1).sample(alone, min(count, len(alone)))  # noqa: S311
    async with loaded_corpus(spec.dataset, spec.settings, spec.product.data, console) as (services, _):
        console.print(f"starting the model (profile {spec.product.profile})", highlight=False)
        async with open_model(spec.product) as models:
            await timed_answer(drawn[0], models, services.index)
            return [await timed_answer(question, models, services.index) for question in drawn]


def figures(timed: list[dict[str, float]]) -> Table:
    """Return the table of medians; a way's sum is the median of the sums."""
    table = Table("step", "write, s", "quote, s")
    for step in STEPS:
        value = f"{median(steps.get(step, 0.0) for steps in timed):.2f}"
        table.add_row(step, value if step in WRITE else "", value if step in QUOTE else "")
    sums = (f"{median(sum(steps.get(s, 0.0) for s in way) for steps in timed):.2f}" for way in (WRITE, QUOTE))
    table.add_row("first words", *sums)
    return table


def main() -> int:
    """Parse the command line, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=HANBIT, help="folder of the data set (default: the golden set)")
    parser.add_argument("--profile", default="cpu", help="the model's profile (default: cpu)")
    parser.add_argument("--count", type=int, default=20, help="questions (default: 20)")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    configure_logs(level="WARNING", log_format="console")
    with tempfile.TemporaryDirectory(prefix="first-words-") as folder:
        settings = Settings()
        product = ProductSpec(
            profile=arguments.profile,
            data=Path(folder),
            weights=settings.weights_dir.expanduser().resolve(),
            environment=dict(os.environ),  # noqa: TID251  the command line's own edge
        )
        spec = RunSpec(dataset=read_dataset(arguments.dataset), settings=settings, product=product, answers=False)
        timed = anyio.run(measure, spec, arguments.count, Console(stderr=True))
    Console(width=None if sys.stdout.isatty() else 100).print(figures(timed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
