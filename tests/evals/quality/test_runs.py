"""Runs are summed up, compared and reported."""

from pathlib import Path

import pytest

from chatbot.events import Accepted, Citation, Event, Failed, FinishReason, Token, Usage
from evals.quality.answer import customer_answer
from evals.quality.compare import compare, verdict
from evals.quality.report import Gate, faults, gate_lines, report
from evals.quality.retrieve import Ranking
from evals.quality.summary import Row, Run, summarise
from evals.questions import Dataset, Sample
from tests.answers import done

CITATION = Citation(n=1, start=0, end=9, document_id="d1", version=1, page=None, quote="It costs 5 won.")


USED = Usage(prompt_tokens=9, answer_tokens=3)
REFUSED = done(FinishReason.REFUSED, usage=USED, grounded=False)


def stream(*events: Event) -> list[Event]:
    """Return the events of a stream that begins as every one does."""
    first = Accepted(answer_id="x", conversation_id="c", question_id="q", model="m", prompt_version="p", trace_id="t")
    return [first, *events]


def test_the_events_of_a_stream_become_an_answer() -> None:
    events = stream(Token(text="It costs "), Token(text="5 won."), CITATION, done(usage=USED))
    answer = customer_answer("q", events, {1: "It costs 5 won."}, 0.5, 1.0)
    assert (answer.text, answer.refused, answer.grounded, answer.prompt_tokens) == ("It costs 5 won.", False, True, 9)


def test_failed_cut_and_refused_streams_are_no_answers() -> None:
    failed = Failed(
        code="model_unavailable", status=503, title="", retryable=True, retry_after_ms=None, trace_id="", handoff=""
    )
    assert customer_answer("q", stream(failed), {}, None, 1.0).finish_reason == "error_model_unavailable"
    assert customer_answer("q", stream(Token(text="It")), {}, None, 1.0).finish_reason == "cut"
    assert customer_answer("q", stream(REFUSED), {}, None, 1.0).refused


def run_of(tmp_path: Path, *, text: str = "It costs 5 won.") -> Run:
    samples = (
        Sample(id="q1", text="How much?", answers=("5 won",), kind="fact"),
        Sample(id="q2", text="The other bank?", unanswerable=True, kind="other_bank"),
    )
    dataset = Dataset(folder=tmp_path, samples=samples, relevant={"q1": {"d1": 1}})
    rankings = [
        Ranking(id="q1", documents=("d2", "d1"), answer_in_top=True, answer_quoted=True, best_terms=1, seconds=1)
    ]
    answers = [
        customer_answer("q1", stream(Token(text=text), CITATION, done(usage=USED)), {1: "It costs 5 won."}, 0.5, 1.0),
        customer_answer("q2", stream(Token(text="No."), REFUSED), {}, 0.1, 0.2),
    ]
    return summarise(dataset, rankings, answers)


def test_a_run_is_summed_up(tmp_path: Path) -> None:
    measures = run_of(tmp_path).measures
    assert measures["mrr"] == 0.5
    assert {measures[name] for name in ("recall@5", "answered", "right", "citation_precision", "citation_recall")} == {
        1.0
    }
    assert {measures[name] for name in ("refusal_precision", "refusal_recall", "grounded")} == {1.0}
    assert (
        measures["numbers_not_in_cited"],
        measures["errors"],
        measures["queries"],
        measures["judged"],
    ) == (
        0,
        0,
        2,
        1,
    )


def test_a_number_without_a_source_is_counted(tmp_path: Path) -> None:
    run = run_of(tmp_path, text="It costs 5 won and 9 dollars.")
    assert run.measures["numbers_not_in_cited"] == 1
    assert "shows numbers that no cited passage holds: 9 dollars" in faults(run.rows[0])


def rows(values: dict[str, float], measure: str = "mrr") -> Run:
    listed = tuple(
        Row(id=name, kind="", question="", unanswerable=False, measures={measure: value})
        for name, value in values.items()
    )
    return Run(dataset="d", measures={}, rows=listed)


def test_wrong_answers_differ_from_answers_beside_the_question(tmp_path: Path) -> None:
    wrong = run_of(tmp_path, text="That much is 7 won.")
    beside = run_of(tmp_path, text="Ask at the counter.")
    assert [wrong.measures[name] for name in ("right", "wrong", "beside")] == [0.0, 1.0, 0.0]
    assert [beside.measures[name] for name in ("right", "wrong", "beside")] == [0.0, 0.0, 1.0]
    assert "wrong: it says something else than the known answer" in faults(wrong.rows[0])
    assert "beside the question" in faults(beside.rows[0])
    assert {line.measure for line in compare(wrong, beside) if line.b < line.a} >= {"wrong"}


def test_two_runs_are_compared_over_the_questions_they_share() -> None:
    a = rows({f"q{n}": 0.0 for n in range(30)})
    b = rows({f"q{n}": 1.0 if n % 3 else 0.0 for n in range(30)} | {"new": 1.0})
    (difference,) = compare(a, b)
    assert difference.questions == 30
    assert difference.b - difference.a == pytest.approx(2 / 3)
    assert difference.is_significant
    assert difference.sentence.startswith("B is significantly better (+0.6667, 95 % interval +0.5")
    assert verdict([difference]).startswith("B is significantly better in mrr; 0 measures show no difference")


def test_a_small_difference_is_not_called_one() -> None:
    (difference,) = compare(rows({"a": 0.0, "b": 1.0, "c": 0.5}), rows({"a": 1.0, "b": 0.0, "c": 0.6}))
    assert not difference.is_significant
    assert difference.sentence.startswith("no difference shown")
    assert verdict([difference]).startswith("B is neither better nor worse")


def test_gates_hold_at_their_bound_and_a_missing_measure_fails(tmp_path: Path) -> None:
    gates = [
        Gate(measure="recall@5", least=1.0),
        Gate(measure="mrr", least=0.6),
        Gate(measure="errors", most=0),
        Gate(measure="unheard_of", least=0),
    ]
    held = {line.measure: line.holds for line in gate_lines(run_of(tmp_path), gates)}
    assert [held[gate.measure] for gate in gates] == [True, False, True, False]
    assert held["queries"] is None


def test_the_report_lists_questions_with_faults_and_their_texts_as_code(tmp_path: Path) -> None:
    written = report(run_of(tmp_path, text="It costs 9 dollars.\n# or not"), [Gate(measure="mrr", least=0.9)])
    assert "1 of 2 questions with a fault" in written
    assert "    It costs 9 dollars.\n    # or not" in written
    assert "| mrr | 0.500 | 0.500 to 0.500 | ≥ 0.9 MISSED |" in written
