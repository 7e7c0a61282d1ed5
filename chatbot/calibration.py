"""Fitted values and what they were fitted with: an embedder, models (by their served names) and the texts of the probe.

A cosine of .85 is near for one embedder and far for another, and models differ in how readily they say yes. So values
that were fitted with others than are served are not used: the model's own word decides (`MODELS_WORD`), and the log
says why.
"""

from importlib.resources import files
from pathlib import Path

import structlog
import yaml
from pydantic import BaseModel, Field, ValidationError

from chatbot.answerability import MODELS_WORD, AnswerabilitySettings, AnswerabilityWeights
from chatbot.models import UNKNOWN_MODEL

log = structlog.get_logger(__name__)


class CalibrationRefused(Exception):
    """The file cannot be read, or is not a calibration; the message says why."""


class CalibrationMisfit(Exception):
    """The fitted values are not those of what is served; the message names it."""


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """A file of fitted values."""

    embedder: str
    models: tuple[str, ...] = Field(min_length=1)
    probe: str
    answerability: AnswerabilityWeights

    def misfit(self, *, embedder: str, model: str, probe: str) -> str:
        """Return in words what is served that this was not fitted with; empty where it fits."""
        served = {
            f"the embedder {embedder}": embedder == self.embedder,
            f"the model {model}": model in (*self.models, UNKNOWN_MODEL),  # no endpoint has told its name: none answers
            f"the probe {probe}": probe == self.probe,
        }
        return " and ".join(name for name, fits in served.items() if not fits)


def read_calibration(path: Path | None) -> Calibration:
    """Return the calibration of a file, or of this package's (blocking).

    Raises:
        CalibrationRefused: the file cannot be read, or is not a calibration.
    """
    try:
        text = (files("chatbot") / "calibration.yaml" if path is None else path).read_text("utf-8")
        return Calibration.model_validate(yaml.safe_load(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise CalibrationRefused(f"CALIBRATION_FILE {path} cannot be read: {exc}") from exc
    except ValidationError as exc:
        errors = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
        raise CalibrationRefused(f"CALIBRATION_FILE {path}: {errors}") from exc


class FittedWeights:
    """The weights that hold for what is served; an operator's own values stand in either case."""

    def __init__(self, calibration: Calibration, own: AnswerabilitySettings) -> None:
        self._calibration = calibration
        self._fitted, self._safe = own.over(calibration.answerability), own.over(MODELS_WORD)
        self._told = ""

    def of(self, *, embedder: str, model: str, probe: str) -> AnswerabilityWeights:
        """Return the weights for an embedder, a model and a probe; a misfit is logged when it begins."""
        misfit = self._calibration.misfit(embedder=embedder, model=model, probe=probe)
        if misfit and misfit != self._told:
            log.warning(
                "calibration_mismatch",
                sentence=(
                    f"The fitted values are of {self._calibration.embedder} and "
                    f"{', '.join(self._calibration.models)}, not of {misfit}: the model's own word decides what is "
                    "answered, until CALIBRATION_FILE names values that were fitted with these (`evals calibrate`)"
                ),
            )
        self._told = misfit
        return self._safe if misfit else self._fitted

    async def require_fit(self) -> None:
        """Raise CalibrationMisfit where the model's own word decides in place of the fitted values."""
        if self._told:
            raise CalibrationMisfit(self._told)
