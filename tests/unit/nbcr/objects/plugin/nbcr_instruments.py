"""A third party's package: its instruments hold something that cannot be pickled, and its saver knows what to do."""

from __future__ import annotations


class Instrument:
    """Cannot be pickled."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stream = iter(lambda: 1, 2)

    def __reduce__(self) -> str:
        raise TypeError("an instrument is open")


class Broken(Instrument):
    """Its saver is advertised but not there."""


class saver:  # noqa: N801
    """What the entry point leads to."""

    @staticmethod
    def save(instrument: Instrument) -> int:
        return instrument.port

    @staticmethod
    def load(port: int) -> Instrument:
        return Instrument(port)
