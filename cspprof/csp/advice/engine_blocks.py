"""Widths that are no multiple of the engine's block of channels.

ONNX Runtime computes convolutions on blocks of channels: 16 with AVX-512, 8 with AVX2. A layer whose width is no
multiple costs as much as one of the next multiple: four 3×3 convolutions at 28×28 took as long with 62 or 66 channels
as with 80, and 1.6 times as long as with 64 (ONNX Runtime 1.32 on one thread).
"""

from __future__ import annotations

from collections.abc import Iterator

from cspprof.core.kinds import CONVOLUTIONS
from cspprof.core.record import OpSpec, Record
from cspprof.csp.advice.network_widths import NetworkWidths, WidthChange, WidthGroup
from cspprof.csp.advice.proposal import LEAST_GAIN, OWN_NUMBERS, Proposal, adviser, named, network_widths
from cspprof.csp.conversion.channels import CouplingError
from cspprof.metrics import value_of

BLOCK = 16
"""Channels in a block of ONNX Runtime with AVX-512."""
LARGEST_NARROWING = 1 / 8
"""The largest part of its channels that a layer may lose."""


def rounded_up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def blocked_macs(record: Record) -> int:
    """The MACs of convolutions, with whole blocks of input and output channels."""
    return sum(_blocked(spec) * n for spec, n in record.spec_counts if spec.kind in CONVOLUTIONS)


def idle_macs(record: Record) -> int:
    """The part of `blocked_macs` that computes nothing: whole blocks minus the channels that the layers have."""
    return sum((_blocked(s) - (s.macs or 0)) * n for s, n in record.spec_counts if s.kind in CONVOLUTIONS)


def _blocked(spec: OpSpec) -> int:
    """A grouped convolution is not computed in blocks; nor is the input of a layer that reads fewer channels than one
    block, as the image."""
    macs, groups = spec.macs or 0, int(spec.attrs.get("groups", 1))
    if len(spec.writes[0].shape) != 4:
        return macs
    c_in, c_out = spec.reads[0].shape[1], spec.writes[0].shape[1]
    if groups == c_in == c_out:
        return macs // c_out * rounded_up(c_out)
    if groups > 1:
        return macs
    padded_in = rounded_up(c_in) if c_in >= BLOCK else c_in
    return macs // (c_in * c_out) * padded_in * rounded_up(c_out)


OWN_NUMBERS["idle_macs"] = f"idle MACs in blocks of {BLOCK}", idle_macs


@adviser("width")
def widths_off_the_block(record: Record) -> list[Proposal]:
    """Widths that are no multiple of the engine's block, and the nearest multiple that costs no more."""
    widths = network_widths(record)
    if widths is None:
        return []
    classes: dict[tuple[tuple[int, ...], int], list[WidthGroup]] = {}
    for group in widths.groups():
        if group.width % BLOCK and len(group.resolution) == 2:
            classes.setdefault((group.resolution, group.width), []).append(group)
    found = [p for groups in classes.values() for p in _nearest_free(record, widths, groups)]
    return sorted(found, key=lambda p: p.computed or 0)


def _nearest_free(record: Record, widths: NetworkWidths, groups: list[WidthGroup]) -> Iterator[Proposal]:
    width = groups[0].width
    up = rounded_up(width)
    blocked, idle, macs = blocked_macs(record), idle_macs(record), value_of(record, "macs")
    for new in sorted({up, up - BLOCK} - {0}, key=lambda w: (abs(w - width), -w)):
        if width - new > width * LARGEST_NARROWING:
            continue
        change = WidthChange(tuple((g.layers[0], new) for g in groups))
        try:
            after = widths.resized(change)
        except CouplingError:
            continue
        saved = idle - idle_macs(after)
        if blocked_macs(after) <= blocked and saved >= LEAST_GAIN * macs:
            cost = "costs no more" if new > width else "costs less"
            yield Proposal(
                named(path for g in groups for path in g.layers),
                f"{width} channels cost as much as {up} in ONNX Runtime (blocks of {BLOCK} with AVX-512, 8 with AVX2)",
                f"{new} channels: the nearest multiple of {BLOCK} that {cost}",
                "idle_macs",
                change,
                idle_macs(after),
            )
            return
