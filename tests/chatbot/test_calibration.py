"""What was fitted with one embedder, model and probe is used for no other, and the log says so once."""

from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

from chatbot.answerability import UNCALIBRATED_WEIGHTS, AnswerabilitySettings, score
from chatbot.calibration import CalibrationRefused, FittedWeights, read_calibration
from chatbot.models import UNKNOWN_MODEL
from chatbot.prompt import load_templates
from knowledge.embedding import DEFAULT_FOLDER
from knowledge.passage import Hit
from llm_server.profile import load_profile
from tests.passages import DEPOSIT

SHIPPED = read_calibration(None)
FITS = {"embedder": SHIPPED.embedder, "model": SHIPPED.models[0], "probe": SHIPPED.probe}
NOTHING_OWN = AnswerabilitySettings()


def test_the_shipped_values_fit_what_make_run_serves() -> None:
    """A change of the probe's texts, of the default model or embedder needs another fit (`evals calibrate`)."""
    served = load_profile("cpu").served_name
    probe = load_templates().probe_version
    assert SHIPPED.misfit(embedder=DEFAULT_FOLDER, model=served, probe=probe) == ""


@pytest.mark.parametrize(
    ("served", "named"),
    [
        ({"embedder": "bge-m3"}, "the embedder bge-m3"),
        ({"model": "qwen3-4b"}, "the model qwen3-4b"),
        ({"probe": "other"}, "the probe other"),
        ({"embedder": "bge-m3", "model": "qwen3-4b"}, "the embedder bge-m3 and the model qwen3-4b"),
    ],
)
def test_weights_that_do_not_fit_are_named_once(served: dict[str, str], named: str) -> None:
    fitted = FittedWeights(SHIPPED, NOTHING_OWN)
    with capture_logs() as logs:
        assert fitted.of(**{**FITS, **served}) == UNCALIBRATED_WEIGHTS
        assert fitted.of(**{**FITS, **served}) == UNCALIBRATED_WEIGHTS
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert f"not with {named}: the model's probes alone decide" in entry["sentence"]


def test_fitting_weights_and_an_operators_value_are_used() -> None:
    fitted, own = FittedWeights(SHIPPED, NOTHING_OWN), FittedWeights(SHIPPED, AnswerabilitySettings(threshold=0.7))
    with capture_logs() as logs:
        for model in (SHIPPED.models[0], UNKNOWN_MODEL):  # also before a model has told its name
            assert fitted.of(**{**FITS, "model": model}) == SHIPPED.answerability
    assert logs == []
    assert own.of(**FITS) == SHIPPED.answerability.model_copy(update={"threshold": 0.7})
    assert own.of(**{**FITS, "embedder": "bge-m3"}) == UNCALIBRATED_WEIGHTS.model_copy(update={"threshold": 0.7})


@pytest.mark.parametrize(
    ("yes", "unknown", "answers"), [(0.51, 0.0, True), (0.49, 0.0, False), (0.8, 0.5, False), (0.99, 0.5, True)]
)
def test_the_models_word_is_corrected_by_the_unknown_share(yes: float, unknown: float, *, answers: bool) -> None:
    hits = [Hit(passage=DEPOSIT, score=0.0, dense=-0.9, terms=0.0)]
    assert (score(hits, [yes], unknown, "ko", UNCALIBRATED_WEIGHTS) >= UNCALIBRATED_WEIGHTS.threshold) is answers
    large = UNCALIBRATED_WEIGHTS.model_copy(update={"first": 1e9})
    assert 0 <= score(hits, [yes], unknown, "ko", large) <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"models": []}, "models: Tuple should have at least 1 item"),
        ({"answerability": {}}, "answerability.threshold: Field required"),
        ({"modell": "x"}, "modell: Extra inputs are not permitted"),
    ],
)
def test_an_invalid_calibration_file_is_refused_by_its_field(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    file = tmp_path / "calibration.yaml"
    file.write_text(yaml.safe_dump(SHIPPED.model_dump(mode="json") | change), "utf-8")
    with pytest.raises(CalibrationRefused, match=sentence):
        read_calibration(file)
    with pytest.raises(CalibrationRefused, match=r"none\.yaml cannot be read"):
        read_calibration(tmp_path / "none.yaml")
    (tmp_path / "text.yaml").write_text("just a text", "utf-8")
    with pytest.raises(CalibrationRefused, match="the file: Input should be"):
        read_calibration(tmp_path / "text.yaml")
