"""Factor on promised delays: 1 in `make faults`, larger on a machine shared with other work."""


class _Patience:
    times = 2.0


def set_patience(times: float) -> None:
    """Set the factor (`--patience`)."""
    _Patience.times = times


def patient(promised: float) -> float:
    """Return the seconds to wait for something promised within `promised` seconds."""
    return promised * _Patience.times + (_Patience.times - 1)
