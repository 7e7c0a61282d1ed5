"""How long a test waits for what is promised: to the letter in `make faults`, longer on a machine that others share."""


class _Patience:
    times = 2.0


def set_patience(times: float) -> None:
    """Set the factor: 1 holds the product to its promises exactly (`--patience`)."""
    _Patience.times = times


def patient(promised: float) -> float:
    """Return the seconds to wait before a promise of `promised` seconds is called broken."""
    return promised * _Patience.times + (_Patience.times - 1)
