"""Advice for a network: changes that improve one of its numbers. An adviser is a function from a record to proposals.

To add one, write a function with `@adviser` in a file here, and import the file below.
"""

from cspprof.csp.advice import concat_reads, conversion, engine_blocks, guidelines, live_peak, low_moc
from cspprof.csp.advice.proposal import ADVISERS, Change, Proposal, StageConversion
from cspprof.csp.advice.suggestions import Suggestion, suggestions

__all__ = [
    "ADVISERS", "Change", "Proposal", "StageConversion", "Suggestion", "concat_reads", "conversion", "engine_blocks",
    "guidelines", "live_peak", "low_moc", "suggestions",
]  # fmt: skip
