"""A bank's own questions: what is fitted to them, what is chosen, what the report says, and that nothing is lost."""

import json
import os
import signal
from pathlib import Path

import anyio
import msgspec
import pytest

from chatbot.calibration import read_calibration
from chatbot.prompt import load_templates
from evals.quality.calibrate import (
    Bars,
    CalibrationResult,
    Case,
    NotCalibrated,
    Outcome,
    Point,
    calibrate,
    calibration_of,
    cases_of,
    chosen_point,
    cross_validated_scores,
    curve_of,
    fit,
    require_current,
    require_enough,
    score,
    write_calibration,
)
from evals.quality.golive import figure_lines, go_live_report
from evals.questions import (
    Dataset,
    Recording,
    RecordingBroken,
    Sample,
    read_dataset,
    read_recording,
    recording_header,
    without_documents,
)
from evals.sample_bank import sample_banks
from llm_server.scripted import Behaviour, scripted_server
from tests.forked import Forked
from tests.patience import patient
from tests.tiny_embedder import tiny_weights

BARS = Bars(not_right=0.1, invented=0.1)
PRODUCTS = ("정기예금", "자유적금", "청년적금", "파킹통장", "외화예금", "주택대출", "전세대출", "체크카드", "신용카드")
FACTS = ("기본 금리", "가입 기간", "최소 금액", "중도해지 이율", "우대 조건")
ABSENT = ("주차 요금", "로고 색깔", "은행장 생일", "구내식당 메뉴", "창립 기념일 행사")


def case(
    n: int,
    *,
    unanswerable: bool = False,
    likely: float,
    outcome: Outcome = Outcome.RIGHT,
    text: str = "?",
    near_miss: bool = False,
) -> Case:
    sample = Sample(
        id=f"{unanswerable}-{n:02}", text=text, answers=() if unanswerable else ("3%",), unanswerable=unanswerable
    )
    features = (1.0, likely, 0.0, 1.0, 0.0, 0.0)
    return Case(
        sample=sample,
        unanswerable=unanswerable or near_miss,
        near_miss=near_miss,
        features=features,
        dense=0.85 + n / 1000,
        outcome=Outcome.INVENTED if unanswerable else outcome,
    )


YES = [case(n, likely=2 + n / 50) for n in range(50)]
NO = [case(n, unanswerable=True, likely=-2 + n / 20) for n in range(20)]


def point(threshold: float, right: int, wrong: int, invented: int) -> Point:
    return Point(
        threshold=threshold, answerable=100, judged=100, answered=right + wrong, right=right, wrong=wrong - 1, beside=1,
        unasked=0, unanswerable=50, invented=invented,
    )  # fmt: skip


def test_the_fit_separates_few_unlikely_from_many_likely() -> None:
    weights = fit([*YES, *NO[:6]])
    assert all((score(case, weights) >= weights.threshold) is not case.unanswerable for case in [*YES, *NO])
    assert weights.likeliest == 0.0
    assert weights.least_dense == pytest.approx(0.83)


def test_a_question_is_judged_by_weights_fitted_without_it() -> None:
    odd = case(99, likely=-9.0)
    miss = case(99, likely=9.0, near_miss=True)
    scores = cross_validated_scores([*YES, *NO, odd, miss])
    seen = fit([*YES, *NO, odd, miss])
    assert scores[-2] < score(odd, seen)
    assert scores[-1] > score(miss, seen)


def test_the_curve_counts_what_customers_would_read() -> None:
    cases = [
        case(0, likely=0, outcome=Outcome.RIGHT),
        case(1, likely=0, outcome=Outcome.WRONG),
        case(6, likely=0, outcome=Outcome.BESIDE),
        case(2, likely=0, outcome=Outcome.UNASKED),
        case(3, likely=0, outcome=Outcome.REFUSED),
        case(4, likely=0, unanswerable=True),
        case(5, likely=0, near_miss=True),
    ]
    curve = {at.threshold: at for at in curve_of(cases, [0.9, 0.8, 0.7, 0.5, 0.9, 0.4, 0.99])}
    shown = [
        (at.answered, at.right, at.wrong, at.beside, at.unasked, at.not_right, at.refused, at.invented)
        for at in map(curve.__getitem__, (0.3, 0.45, 0.6, 0.85))
    ]
    assert shown == [
        (4, 1, 1, 1, 1, 3, 1, 1),
        (4, 1, 1, 1, 1, 3, 1, 0),
        (3, 1, 1, 1, 0, 2, 2, 0),
        (1, 1, 0, 0, 0, 0, 4, 0),
    ]
    assert {(at.answerable, at.unanswerable) for at in curve.values()} == {(5, 1)}


def test_most_right_answers_within_both_bars_are_chosen() -> None:
    curve = [point(0.2, 80, 15, 4), point(0.4, 75, 9, 6), point(0.6, 70, 8, 4), point(0.8, 60, 1, 0)]
    chosen, reason = chosen_point(curve, BARS)
    assert chosen.threshold == 0.6
    assert "hold both bars" in reason


def test_a_bar_held_only_by_hardly_answering_is_missed() -> None:
    curve = [point(0.2, 60, 30, 20), point(0.5, 55, 20, 6), point(0.9, 10, 2, 0)]
    chosen, reason = chosen_point(curve, BARS)
    assert chosen.threshold == 0.5
    assert "no threshold holds both bars" in reason
    assert "0.90, with 10 right answers" in reason


@pytest.mark.parametrize(
    ("answerable", "unanswerable", "sentence"),
    [
        (60, 0, "no question is unanswerable"),
        (60, 5, "60 answerable and 5 unanswerable questions are too few"),
        (12, 30, "12 answerable and 30 unanswerable questions are too few"),
    ],
)
def test_too_few_questions_are_refused_with_what_to_add(answerable: int, unanswerable: int, sentence: str) -> None:
    samples = [Sample(id=f"a{n}", text="?", answers=("3%",)) for n in range(answerable)]
    samples += [Sample(id=f"u{n}", text="?", unanswerable=True) for n in range(unanswerable)]
    with pytest.raises(NotCalibrated, match=sentence):
        require_enough(samples)


def test_a_fit_is_written_as_a_calibration(tmp_path: Path) -> None:
    weights = fit([*YES, *NO])
    write_calibration(
        calibration_of(weights, embedder="bge-m3", model="qwen3-4b"), tmp_path / "own" / "calibration.yaml"
    )
    written = read_calibration(tmp_path / "own" / "calibration.yaml")
    assert written.misfit(embedder="bge-m3", model="qwen3-4b", probe=load_templates().probe_version) == ""
    assert written.answerability == weights


def result_of(cases: list[Case]) -> CalibrationResult:
    return calibrate(cases, BARS)


def report_of(result: CalibrationResult) -> str:
    fitted = calibration_of(result.weights, embedder="e5-small", model="own-model")
    return go_live_report(result, fitted, dataset="our bank", day="2026-11-28")


def test_the_report_shows_the_figures_the_point_and_the_worst() -> None:
    wrong = [case(60 + n, likely=1.5, outcome=Outcome.WRONG, text=f"틀린 {n}?") for n in range(4)]
    invented = [case(60, unanswerable=True, likely=2.5, text="주차 요금은?")]
    report = report_of(result_of([*YES, *NO, *wrong, *invented]))
    for sentence in (
        "50 of 54",
        "Wrong answers (4,",
        "Answers beside the question (0,",
        "own-model",
        "틀린 0?",
        "CALIBRATION_FILE",
        "What the documents lack (21)",
    ):
        assert sentence in report
    assert report.index("Unanswerable questions that are answered (1,") < report.index("주차 요금은?")


def test_a_missed_bar_is_reported() -> None:
    wrong = [case(60 + n, likely=3, outcome=Outcome.WRONG if n else Outcome.BESIDE) for n in range(40)]
    result = result_of([*YES, *NO, *wrong])
    shares = {name: share for name, share, _ in figure_lines(result)}
    assert ("39 of 90" in shares["wrong"], "1 of 90" in shares["beside the question"]) == (True, True)
    lines = {name: bar for name, _, bar in figure_lines(result)}
    assert lines["wrong or beside the question"].startswith("MISSED")
    assert lines["unanswerable questions answered"].startswith("holds")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The folder of a small bank: a document a product, 45 questions that it answers and 15 that none does."""
    folder = tmp_path_factory.mktemp("small-bank")
    facts = {(p, f): f"{p}의 {f}은 {10 * n + m}입니다." for n, p in enumerate(PRODUCTS, 1) for m, f in enumerate(FACTS)}
    corpus = [
        {"id": f"product-{n}", "title": p, "text": "\n".join(facts[p, f] for f in FACTS)}
        for n, p in enumerate(PRODUCTS)
    ]
    queries: list[dict[str, object]] = [
        {"id": f"{n}-{m}", "text": f"{p}의 {f}은 얼마인가요?", "answers": [facts[p, f]]}
        for n, p in enumerate(PRODUCTS)
        for m, f in enumerate(FACTS)
    ]
    queries += [
        {"id": f"none-{n}-{place}", "text": f"{place} 지점 {absent} 알려주세요", "unanswerable": True}
        for n, absent in enumerate(ABSENT)
        for place in ("부산", "제주", "강남")
    ]
    relevant = [f"{n}-{m}\tproduct-{n}\t1" for n, _ in enumerate(PRODUCTS) for m, _ in enumerate(FACTS)]
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *relevant]) + "\n", "utf-8")
    return read_dataset(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp())


def command(bank: Dataset, folder: Path, weights: Path, url: str, *arguments: str) -> tuple[Forked, Path]:
    """Start `evals calibrate` with the bank's own endpoint; return the process and its log."""
    log = folder / "calibrate.log"
    options = ["calibrate", "--dataset", str(bank.folder), "--output", str(folder / "out"), *arguments]
    own = {"DATA_DIR": str(folder), "WEIGHTS_DIR": str(weights), "LLM_URLS": url, "LLM_PROFILE": "scripted"}
    return Forked("evals.__main__", options, os.environ | own, log), log  # noqa: TID251 - it inherits it


@pytest.mark.anyio
async def test_a_stopped_calibration_continues_and_writes_its_report(tmp_path: Path, bank: Dataset, tiny: Path) -> None:
    recorded = tmp_path / "out" / "recorded.jsonl"
    async with scripted_server(Behaviour(sentences=1)) as server:
        stopped, log = command(bank, tmp_path, tiny, server.url, "--at-once", "1")
        with anyio.fail_after(patient(120)):
            while not recorded.exists() or recorded.read_bytes().count(b'"type":"answer"') < 3:
                assert stopped.poll() is None, log.read_text("utf-8")
                await anyio.sleep(0.02)
        stopped.send_signal(signal.SIGINT)
        assert await anyio.to_thread.run_sync(stopped.wait, 100) == 130
        assert "the same command continues" in log.read_text("utf-8")
        answers = [line for line in recorded.read_bytes().splitlines() if b'"type":"answer"' in line]
        widest_bars = ("--most-wrong", "1", "--most-unanswerable", "1")
        continued, log = command(bank, tmp_path, tiny, server.url, *widest_bars)
        status = await anyio.to_thread.run_sync(continued.wait, 100)
    assert status == 0, log.read_text("utf-8")
    assert set(answers) <= set(recorded.read_bytes().splitlines())
    assert read_calibration(tmp_path / "out" / "calibration.yaml").models == ("scripted",)
    assert "Go-live report: small-bank" in (tmp_path / "out" / "go-live.md").read_text("utf-8")
    recording = read_recording(recorded)
    probed = [answer for answer in recording.answers if not answer.id.endswith("-without") and answer.probes]
    assert all(answer.model_text is not None for answer in probed)  # also where the probe says no
    cases = cases_of(recording, bank, sample_banks().first)
    assert_near_misses_lack_their_documents(cases, recording, bank)
    result = calibrate(cases, BARS)
    assert (result.chosen.right >= 30, result.chosen.invented) == (True, 0)


def assert_near_misses_lack_their_documents(cases: list[Case], recording: Recording, bank: Dataset) -> None:
    near = [case for case in cases if case.near_miss]
    assert len(near) >= 30
    assert {case.unanswerable for case in near} == {True}
    recorded = {answer.id: answer for answer in recording.answers}
    for missed in near:
        documents = {key[0] for key in recorded[without_documents(missed.sample.id)].passages}
        assert not documents & bank.right_documents(missed.sample)


def test_a_recording_of_other_documents_or_fewer_questions_is_refused(tmp_path: Path, bank: Dataset) -> None:
    header = msgspec.to_builtins(recording_header(bank, model="m", profile="p"))
    (tmp_path / "r.jsonl").write_bytes(msgspec.json.encode(header) + b"\n")
    with pytest.raises(RecordingBroken, match="60 of 60 questions are not in it"):
        require_current(read_recording(tmp_path / "r.jsonl"), bank, tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl").write_bytes(msgspec.json.encode({**header, "documents": "others"}) + b"\n")
    with pytest.raises(RecordingBroken, match=r"the documents of small-bank.* have changed"):
        require_current(read_recording(tmp_path / "r.jsonl"), bank, tmp_path / "r.jsonl")
