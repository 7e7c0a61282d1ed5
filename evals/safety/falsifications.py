"""`python -m evals.safety.falsifications`: how many small falsifications of a passage the checks show.

Sentences of the corpora are drawn, falsified in each way that they allow (`evals/questions/falsified.py`) and put
through the checks as a model's answer, with their passage first and two others beside it. A falsification is shown
where its words are shown; where the checks show the passage's own words instead, it is not. Of the true sentences it is
told how many are lost: withheld with nothing in their place. Prints one JSON line with 95 % intervals by kind.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from chatbot.grounding import passage_sentences
from chatbot.quotes import features
from evals.quality import checked_answer
from evals.questions import HANBIT, CorpusEntry, FalsifiedSentence, falsified, read_lines, read_recording
from evals.sample_bank import sample_banks
from evals.scorers import share_interval
from knowledge.passage import Passage, language_of

FEWEST_FEATURES = 5
"""Content features of a sentence that is drawn: a shorter one is a label."""
SHORTEST, LONGEST = 20, 220
"""Characters of a sentence that is drawn."""
_ASK = {"ko": "{title}에 대해 알려 주세요", "en": "Tell me about {title}"}


def main(
    corpus: Annotated[list[Path], typer.Option(help="Folders with corpus.jsonl, beside the sample bank.")] = [],  # noqa: B006
    count: Annotated[int, typer.Option(min=1, help="Sentences drawn from each corpus.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 1,
    show: Annotated[int, typer.Option(min=0, help="Print so many that are shown.")] = 0,
) -> None:
    """Falsify sentences of documents and say how many of them the checks show."""
    chance = random.Random(seed)  # noqa: S311  a draw
    shown: Counter[str] = Counter()
    made: Counter[str] = Counter()
    lost = drawn_count = 0
    listed: list[FalsifiedSentence] = []
    for passages in (sample_passages(), *map(corpus_passages, corpus)):
        for passage, sentence in drawn(passages, chance)[:count]:
            drawn_count += 1
            sources = [passage, *chance.sample(passages, 2)]
            lost += not shown_text(sentence, sources)
            others = [other.text for other in passage_sentences(passage.text) if other.text != sentence]
            for one in falsified(sentence, others, chance):
                made[one.kind] += 1
                if is_shown(one, sources):
                    shown[one.kind] += 1
                    listed.append(one)
    figures: dict[str, object] = {"sentences": drawn_count, "true_lost": _share(lost, drawn_count)}
    figures |= {"falsified": made.total(), "shown": _share(shown.total(), made.total())}
    figures |= {f"shown: {kind}": _share(shown[kind], number) for kind, number in sorted(made.items())}
    for one in chance.sample(listed, min(show, len(listed))):
        typer.echo(f"{one.kind}\n  {one.true}\n  {one.false}", err=True)
    typer.echo(json.dumps(figures, ensure_ascii=False))


def sample_passages() -> list[Passage]:
    """Return the passages of the sample bank's recorded answers."""
    recording = read_recording(HANBIT / "recorded.jsonl")
    return [recorded.passage() for recorded in recording.passages.values()]


def corpus_passages(folder: Path) -> list[Passage]:
    """Return a passage for each entry of a corpus."""
    like = sample_passages()[0]
    return [
        replace(
            like, document_id=entry.id, title=entry.title, section="", text=entry.text, language=language_of(entry.text)
        )
        for entry in read_lines(folder / "corpus.jsonl", CorpusEntry)
    ]


def drawn(passages: Sequence[Passage], chance: random.Random) -> list[tuple[Passage, str]]:
    """Return the sentences that can be falsified, in random order."""
    sentences = [(passage, sentence) for passage in passages for sentence in _whole_sentences(passage)]
    chance.shuffle(sentences)
    return sentences


def _whole_sentences(passage: Passage) -> Iterator[str]:
    for sentence in passage_sentences(passage.text):
        plain = not sentence.text.startswith(("|", "#", "-", "*"))
        if plain and SHORTEST <= len(sentence.text) <= LONGEST and len(features(sentence.text)) >= FEWEST_FEATURES:
            yield sentence.text


def is_shown(one: FalsifiedSentence, sources: Sequence[Passage]) -> bool:
    """Return whether the checks show a false sentence in its own words."""
    return _plain(one.false) in _plain(shown_text(one.false, sources))


def shown_text(sentence: str, sources: Sequence[Passage]) -> str:
    """Return what a customer would see of a sentence that a model says."""
    question = _ASK[language_of(sentence)].format(title=sources[0].title)
    checks, _ = checked_answer(question, sources, sentence, bank=sample_banks().first)
    return checks.text


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".")


def _share(hits: int, total: int) -> dict[str, float | int]:
    interval = share_interval(hits, total)
    return {"share": round(hits / total, 4), "of": total, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    typer.run(main)
