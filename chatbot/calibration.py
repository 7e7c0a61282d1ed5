"""Fitted weights, with the embedder, the models (by served name) and the probe's version that they were fitted with.

A cosine of .85 is near for one embedder and far for another, and models differ in how readily they say yes. Weights
that were fitted with another embedder, model or probe are not used: `UNCALIBRATED_WEIGHTS` apply, with a warning.
"""

from importlib.resources import files
from pathlib import Path

import structlog
import yaml
from pydantic import BaseModel, Field, ValidationError

from chatbot.answerability import UNCALIBRATED_WEIGHTS, AnswerabilitySettings, AnswerabilityWeights
from chatbot.models import UNKNOWN_MODEL

log = structlog.get_logger(__name__)


class CalibrationRefused(Exception):
    """The file cannot be read or is not a valid calibration; the message says why."""


class CalibrationMisfit(Exception):
    """The weights were fitted with another embedder, model or probe; the message names the served one."""


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """A calibration file."""

    embedder: str
    models: tuple[str, ...] = Field(min_length=1)
    probe: str
    answerability: AnswerabilityWeights

    def misfit(self, *, embedder: str, model: str, probe: str) -> str:
        """Name each served part (embedder, model, probe) that the weights were not fitted with; empty if none."""
        fits = {
            f"the embedder {embedder}": embedder == self.embedder,
            f"the model {model}": model in (*self.models, UNKNOWN_MODEL),  # unknown while no endpoint is up
            f"the probe {probe}": probe == self.probe,
        }
        return " and ".join(name for name, is_fitted in fits.items() if not is_fitted)


def read_calibration(path: Path | None) -> Calibration:
    """Read a calibration file, by default this package's (blocking).

    Raises:
        CalibrationRefused: the file cannot be read or is not a valid calibration.
    """
    file = files("chatbot") / "calibration.yaml" if path is None else path
    try:
        return Calibration.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise CalibrationRefused(f"CALIBRATION_FILE {path} cannot be read: {exc}") from exc
    except ValidationError as exc:
        errors = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
        raise CalibrationRefused(f"CALIBRATION_FILE {path}: {errors}") from exc


class FittedWeights:
    """Selects the weights for the served embedder, model and probe; the operator's overrides always apply."""

    def __init__(self, calibration: Calibration, overrides: AnswerabilitySettings) -> None:
        self._calibration = calibration
        self._fitted = overrides.override(calibration.answerability)
        self._uncalibrated = overrides.override(UNCALIBRATED_WEIGHTS)
        self._misfit = ""

    def of(self, *, embedder: str, model: str, probe: str) -> AnswerabilityWeights:
        """Return the weights for an embedder, a model and a probe; log each new misfit once."""
        misfit = self._calibration.misfit(embedder=embedder, model=model, probe=probe)
        if misfit and misfit != self._misfit:
            log.warning(
                "calibration_mismatch",
                sentence=(
                    f"The weights were fitted with {self._calibration.embedder} and "
                    f"{', '.join(self._calibration.models)}, not with {misfit}: the model's probes alone decide what "
                    "is answered, until CALIBRATION_FILE names weights that were fitted with these (`evals calibrate`)"
                ),
            )
        self._misfit = misfit
        return self._uncalibrated if misfit else self._fitted

    async def require_fit(self) -> None:
        """Raise CalibrationMisfit if the fitted weights are not in use."""
        if self._misfit:
            raise CalibrationMisfit(self._misfit)
