"""Data sets are read, runs are summed up, compared and reported; a corpus goes through the product's own pipeline."""

import json
import random
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from chatbot.events import Accepted, Citation, Event, Failed, FinishReason, Token, Usage
from evals.quality.answer import customer_answer
from evals.quality.compare import NotComparable, compare, verdict
from evals.quality.page import page
from evals.quality.report import Gate, TaskBroken, faults, lines, read_task
from evals.quality.retrieve import HalfRanking, Ranking, ranking_of
from evals.quality.summary import Row, Run, RunBroken, read_run, summarise, write_run
from evals.questions import (
    CorpusEntry,
    CorpusNotLoaded,
    CustomerAnswer,
    Dataset,
    DatasetBroken,
    Sample,
    corpus_files,
    document_ids,
    read_dataset,
    require_loaded,
)
from evals.scorers import holm, intervals
from ingest.bulk import LoadOutcome, SourceFile
from ingest.catalogue import Metadata
from knowledge.passage import Hit
from tests.answers import done
from tests.knowledge.conftest import BANK

TASK = Path(__file__).parents[3] / "evals" / "tasks" / "hanbit.yaml"


LOADED = LoadOutcome(file=SourceFile(path=Path("a.txt"), name="a.txt", document_id="a", metadata=Metadata()))


def written(folder: Path, queries: str, qrels: str) -> Path:
    (folder / "queries.jsonl").write_text(queries, "utf-8")
    (folder / "qrels.tsv").write_text(qrels, "utf-8")
    return folder


def test_a_folder_is_read_as_a_data_set(tmp_path: Path) -> None:
    history = [{"role": "user", "text": "one"}, {"role": "assistant", "text": "two"}, {"role": "user", "text": "three"}]
    # A line separator within a text ends no line of the file.
    rows = [{"id": "a", "text": "그럼?\u2028", "history": history, "unknown": 1}, {"id": "b", "text": "?"}]
    queries = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    dataset = read_dataset(written(tmp_path, queries, "query-id\tcorpus-id\tscore\na\td1\t1\na\td2\t2\n"))
    assert [sample.id for sample in dataset.samples] == ["a", "b"]
    assert dataset.samples[0].earlier == ("one", "three")
    assert dataset.relevant == {"a": {"d1": 1, "d2": 2}}
    assert [sample.id for sample in read_dataset(tmp_path, limit=1).samples] == ["a"]


def test_one_split_is_read_alone_and_a_question_without_one_belongs_to_both(tmp_path: Path) -> None:
    splits = {"a": "dev", "b": "test", "c": ""}
    queries = "\n".join(json.dumps({"id": name, "text": "?", "split": split}) for name, split in splits.items())
    folder = written(tmp_path, queries, "query-id\tcorpus-id\tscore\n")
    assert [sample.id for sample in read_dataset(folder, split="test").samples] == ["b", "c"]
    assert [sample.id for sample in read_dataset(folder).samples] == ["a", "b", "c"]
    (folder / "queries.jsonl").write_text("")
    with pytest.raises(DatasetBroken, match="no question of the split dev"):
        read_dataset(folder, split="dev")


@pytest.mark.parametrize(
    ("queries", "qrels", "says"),
    [
        ('{"id": "a"}', "h\n", "queries.jsonl, line 1"),
        ('{"id": "a", "text": "?"}', "h\na\td1\n", "qrels.tsv, line 2"),
        ('{"id": "a", "text": "?"}', "h\na\td1\tmuch\n", "qrels.tsv, line 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, queries: str, qrels: str, says: str) -> None:
    with pytest.raises(DatasetBroken, match=says):
        read_dataset(written(tmp_path, queries, qrels))


def test_a_folder_without_files_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetBroken, match=r"queries\.jsonl"):
        read_dataset(tmp_path)


def test_corpus_entries_become_files_that_the_catalogue_tells_apart(tmp_path: Path) -> None:
    corpus = [CorpusEntry("a-1", "Title\nin two lines", "same"), CorpusEntry("b/2 with blanks", "", "same")]
    entries = document_ids(corpus)
    files = corpus_files(corpus, entries, tmp_path)
    assert entries == {"a-1": "a-1", "entry-000001": "b/2 with blanks"}
    assert [file.metadata.title for file in files] == ["Title in two lines", None]
    assert len({file.path.read_bytes() for file in files}) == 2


@pytest.mark.parametrize(("reason", "may_be_refused"), [("suspicious", False), ("malformed", True)])
def test_a_document_that_was_not_loaded_stops_a_run(reason: str, *, may_be_refused: bool) -> None:
    with pytest.raises(CorpusNotLoaded, match=f"1 of 2 entries were not loaded, first a.txt: {reason}"):
        require_loaded([LOADED, replace(LOADED, reason=reason)], may_be_refused=may_be_refused)
    assert require_loaded([LOADED, replace(LOADED, reason="empty_text")], may_be_refused=may_be_refused) == 0


def test_documents_that_cannot_be_approved_are_left_out_of_a_public_corpus_and_counted() -> None:
    assert require_loaded([LOADED, replace(LOADED, reason="suspicious")], may_be_refused=True) == 1


def hit(document: str, text: str, score: float) -> Hit:
    return Hit(passage=replace(BANK, document_id=document, text=text), score=score, dense=0.8, terms=score)


def test_an_entry_stands_where_its_best_passage_does() -> None:
    hits = [hit("d1", "no", 3.0), hit("d2", "a fee of 5 won", 2.0), hit("d1", "no", 1.0), hit("d3", "7 won", 0.5)]
    sample = Sample(id="q", text="?", answers=("7 won",))
    ranking = ranking_of(sample, hits, {"d1": "one", "d2": "two", "d3": "three"}, shown=3, seconds=0.1)
    assert ranking.documents == ("one", "two", "three")
    assert ranking.answer_in_top is False
    assert ranking.margin == 2.5


def test_the_fused_ranking_stands_beside_its_halves_with_how_sure_the_difference_is() -> None:
    """Of 20 questions the better half (dense) finds 15 first; fused, each is found first, or only half of them."""

    def run(fused: set[int]) -> Run:
        rankings = [
            Ranking(
                id=f"q{n}",
                documents=("right" if n in fused else "wrong",),
                answer_in_top=None,
                best_dense=0.9,
                best_terms=0.1,
                margin=0.0,
                seconds=0.03,
                halves={
                    "dense": HalfRanking(("right" if n < 15 else "wrong",), 0.02),
                    "terms": HalfRanking(("right" if n < 5 else "wrong",), 0.01),
                },
            )
            for n in range(20)
        ]
        samples = tuple(Sample(id=f"q{n}", text="?") for n in range(20))
        relevant = {f"q{n}": {"right": 1} for n in range(20)}
        return summarise(Dataset(folder=Path("set"), samples=samples, relevant=relevant), rankings, [])

    better, worse = run(set(range(20))).measures, run(set(range(7))).measures
    assert (better["ndcg@10 dense alone"], better["ndcg@10 terms alone"]) == (0.75, 0.25)
    assert better["above dense alone"] == 0.25
    assert isinstance(better["above dense alone, low"], float)
    assert better["above dense alone, low"] > 0
    assert worse["above dense alone"] == -0.4
    assert isinstance(worse["above dense alone, high"], float)
    assert worse["above dense alone, high"] < 0
    assert better["search_seconds_p95 over dense alone"] == 1.5


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


def test_a_failed_a_cut_and_a_refused_answer_are_none() -> None:
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
        Ranking(id="q1", documents=("d2", "d1"), answer_in_top=True, best_dense=1, best_terms=1, margin=0, seconds=1)
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


def test_a_run_is_written_and_read_again(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    write_run(run, tmp_path / "new" / "run.json")
    assert read_run(tmp_path / "new" / "run.json") == run
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RunBroken):
        read_run(tmp_path / "other.json")


def test_a_run_of_an_earlier_release_is_read_and_compared(tmp_path: Path) -> None:
    today = run_of(tmp_path)
    write_run(today, tmp_path / "run.json")
    former = json.loads((tmp_path / "run.json").read_text("utf-8"))
    for named in (former["measures"], former["intervals"], former["rows"][0]["measures"]):
        named["correct"] = named.pop("right")
        del named["wrong"], named["beside"]
    former["rows"][0]["judged"]["correct"] = former["rows"][0]["judged"].pop("judgement") == "right"
    (tmp_path / "former.json").write_text(json.dumps(former), "utf-8")
    read = read_run(tmp_path / "former.json")
    assert (read.measures["right"], read.intervals["right"].high) == (1.0, 1.0)
    assert "right" in {difference.measure for difference in compare(read, today)}


def rows(values: dict[str, float], measure: str = "mrr") -> Run:
    listed = tuple(
        Row(id=name, kind="", question="", unanswerable=False, measures={measure: value})
        for name, value in values.items()
    )
    return Run(dataset="d", measures={}, rows=listed)


def test_what_is_wrong_or_beside_the_question_is_told_apart_and_read_first(tmp_path: Path) -> None:
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
    assert verdict([difference]).startswith("B is significantly better in mrr; the other 0 measures show no difference")


def test_a_small_difference_is_not_called_one() -> None:
    (difference,) = compare(rows({"a": 0.0, "b": 1.0, "c": 0.5}), rows({"a": 1.0, "b": 0.0, "c": 0.6}))
    assert not difference.is_significant
    assert difference.sentence.startswith("no difference shown")
    assert verdict([difference]).startswith("Nothing shows that the two runs differ")


def test_slower_answers_are_worse_ones() -> None:
    slow, fast = ({f"q{n}": seconds for n in range(40)} for seconds in (9.0, 2.0))
    (difference,) = compare(rows(fast, "seconds"), rows(slow, "seconds"))
    assert difference.is_worse
    assert "B is significantly worse in seconds" in verdict([difference])


def test_who_looks_at_many_measures_finds_rng_in_one_of_them() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert corrected == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(7)  # noqa: S311  draws, no secret
    covered = 0
    for seed in range(30):
        drawn = [float(rng.random() < 0.8) for _ in range(120)]
        made = intervals(drawn, lambda values: {"share": sum(values) / len(values), "count": len(values)}, seed=seed)
        assert made.keys() == {"share"}
        covered += made["share"].low <= 0.8 <= made["share"].high
    assert 26 <= covered <= 30


def test_every_score_of_a_summary_has_an_interval_around_it(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    scores = {name: value for name, value in run.measures.items() if isinstance(value, float)}
    named = {"mrr", "right", "wrong", "beside", "refusal_recall", "answer_seconds_p95"}
    assert run.intervals.keys() == scores.keys() >= named
    assert all(run.intervals[name].low <= value <= run.intervals[name].high for name, value in scores.items())


def test_runs_over_other_questions_cannot_be_compared() -> None:
    with pytest.raises(NotComparable):
        compare(rows({"a": 1.0}), rows({"b": 1.0}))


def test_gates_hold_at_their_bound_and_a_missing_measure_fails(tmp_path: Path) -> None:
    gates = [
        Gate(measure="recall@5", least=1.0),
        Gate(measure="mrr", least=0.6),
        Gate(measure="errors", most=0),
        Gate(measure="unheard_of", least=0),
    ]
    held = {line.measure: line.holds for line in lines(run_of(tmp_path), gates)}
    assert [held[gate.measure] for gate in gates] == [True, False, True, False]
    assert held["queries"] is None


def test_the_page_lists_questions_with_faults_and_escapes_their_texts(tmp_path: Path) -> None:
    run = run_of(tmp_path, text="It costs <b>9</b> dollars.")
    written_page = page(run, [])
    assert "1 of 2 questions with a fault" in written_page
    assert "&lt;b&gt;9&lt;/b&gt; dollars" in written_page


class Addresses(HTMLParser):
    """Collects the URLs that a page would fetch, and the labels of its plots."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.plots: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag in {"script", "link", "img", "iframe", "object", "embed"} or names & {"src", "href", "xlink:href"}:
            self.fetched.append(tag)
        if tag == "svg":
            self.plots.append(dict(attrs)["aria-label"] or "")


def test_the_page_has_plots_and_fetches_nothing(tmp_path: Path) -> None:
    written_page = page(run_of(tmp_path, text='"><img src=x>'), [Gate(measure="mrr", least=0.9)])
    read = Addresses()
    read.feed(written_page)
    assert read.fetched == []
    assert read.plots[0].startswith("Scores with their 95 % intervals")
    assert {"recall@5 by kind of question", "Seconds to the first token"} <= set(read.plots)
    assert 'class="bad"' in written_page  # the missed gate is drawn as one
    assert "url(" not in written_page


def test_the_task_of_make_evals_is_one() -> None:
    task = read_task(TASK)
    assert {gate.measure for gate in task.gates} >= {"recall@5", "answered", "refusal_recall", "citation_recall"}


def test_a_gate_with_two_bounds_is_refused(tmp_path: Path) -> None:
    broken = "dataset: x\nprofile: cpu\ngates: [{measure: a, least: 0, most: 1}]\n"
    (tmp_path / "task.yaml").write_text(broken)
    with pytest.raises(TaskBroken, match="least"):
        read_task(tmp_path / "task.yaml")


def test_answers_survive_being_written() -> None:
    answer = customer_answer("q", stream(Token(text="5"), CITATION, done(usage=USED)), {1: "5"}, None, 1.0)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=CustomerAnswer) == answer
