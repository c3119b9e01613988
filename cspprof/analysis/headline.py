"""Which metric of memory traffic describes a network: CIO counts convolutions only, and some networks have few."""

from __future__ import annotations

from collections.abc import Iterable

from cspprof.core.record import Record
from cspprof.metrics import METRICS, Ratio

OF_CONVOLUTIONS = frozenset({"activations", "cio_hardnet", "cio_cspnet", "cio_bytes", "moc"})
"""The metrics that count convolutions (and pooling) and no other operation."""
LEAST_SHARE = 0.5
"""The share of the MACs in convolutions from which CIO describes a network."""
NEARLY_ALL = 0.99
"""The share from which tables do not mention it."""


def known_conv_share(record: Record) -> float | None:
    """The share of the known MACs that convolutions have; None if no MACs are known."""
    amount = METRICS.get("conv_share").total(record)
    assert isinstance(amount, Ratio)
    return amount.numerator / amount.denominator if amount.denominator else None


def cio_describes(record: Record) -> bool:
    """Whether convolutions have at least half of the known MACs, or no MACs are known."""
    share = known_conv_share(record)
    return share is None or share >= LEAST_SHARE


def cio_describes_all(records: Iterable[Record]) -> bool:
    return all(map(cio_describes, records))


def needs_conv_share(record: Record) -> bool:
    """Whether a table of CIO must show which share of the MACs it sees: it is below 99 % or unknown."""
    amount = METRICS.get("conv_share").total(record)
    assert isinstance(amount, Ratio)
    return bool(amount.missed) or (amount.value is not None and amount.value < NEARLY_ALL)


def headline(records: Iterable[Record]) -> str:
    """The metric of memory traffic that comes first: `cio_cspnet`, or `traffic_bytes` if CIO does not describe one of
    the networks."""
    return "cio_cspnet" if cio_describes_all(records) else "traffic_bytes"
