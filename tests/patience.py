"""The factor on promised delays: 1 in `make faults`, larger on a shared machine."""


class _Patience:
    times = 2.0


def set_patience(times: float) -> None:
    """Set the factor (`--patience`)."""
    _Patience.times = times


def patient(promised: float) -> float:
    """Return the timeout for something promised within `promised` seconds."""
    return promised * _Patience.times + (_Patience.times - 1)
