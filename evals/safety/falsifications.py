"""`python -m evals.safety.falsifications`: the share of small falsifications that the checks of a model's text show.

The false sentences of `evals/datasets/made/falsified.jsonl` are checked as a model's answer, with their passage first
and two others. A falsification is shown if its own words are shown, not if the passage's words replace them. A true
sentence is lost if it is withheld without a replacement. Prints one JSON line with 95 % intervals by kind.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence

import typer

from evals.quality import checked_answer
from evals.questions import HANBIT, read_falsifications, read_recording
from evals.sample_bank import sample_banks
from evals.scorers import share_interval
from knowledge.passage import Passage, language_of

_QUESTION = {"ko": "{title}에 대해 알려 주세요", "en": "Tell me about {title}"}


def main(show: int = 0) -> None:
    """Print the share of falsifications shown, and up to `show` of them on stderr."""
    passages = read_recording(HANBIT / "recorded.jsonl").passages
    falsifications = read_falsifications()
    totals: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    lost = 0
    for falsification in falsifications:
        sources = [passages[key].passage() for key in falsification.passages]
        if not shown_text(falsification.true, sources):
            lost += 1
        for kind, false in falsification.false.items():
            totals[kind] += 1
            if is_shown(false, sources):
                shown[kind] += 1
                if shown.total() <= show:
                    typer.echo(f"{kind}\n  {falsification.true}\n  {false}", err=True)
    figures: dict[str, object] = {"sentences": len(falsifications), "true_lost": _share(lost, len(falsifications))}
    figures |= {"falsified": totals.total(), "shown": _share(shown.total(), totals.total())}
    figures |= {f"shown: {kind}": _share(shown[kind], total) for kind, total in sorted(totals.items())}
    typer.echo(json.dumps(figures, ensure_ascii=False))


def is_shown(false: str, sources: Sequence[Passage]) -> bool:
    """Return whether the checks show a false sentence in its own words."""
    return _plain(false) in _plain(shown_text(false, sources))


def shown_text(sentence: str, sources: Sequence[Passage]) -> str:
    """Return the text that a customer would see if a model wrote this sentence."""
    question = _QUESTION[language_of(sentence)].format(title=sources[0].title)
    checks, _ = checked_answer(question, sources, sentence, bank=sample_banks().first)
    return checks.text


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".")


def _share(hits: int, total: int) -> dict[str, float | int]:
    interval = share_interval(hits, total)
    return {"share": round(hits / total, 4), "of": total, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    typer.run(main)
