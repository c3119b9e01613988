"""Layers with few MACs for each element that they read and write (MoC, Chao et al. 2019, section 3)."""

from __future__ import annotations

from cspprof.core.record import Record
from cspprof.csp.advice.guidelines import dense_proposals
from cspprof.csp.advice.proposal import Proposal, adviser


@adviser("low-moc")
def low_moc(record: Record) -> list[Proposal]:
    """Depthwise convolutions, which have the lowest MoC, and the dense ones with at most the same MACs."""
    return dense_proposals(record, depthwise=True, metric="moc")
