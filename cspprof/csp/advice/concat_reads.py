"""Concatenated maps that several convolutions read: CIO counts each read in full."""

from __future__ import annotations

from cspprof.core.dataflow import edges
from cspprof.core.kinds import Kind
from cspprof.core.record import OpSpec, Record
from cspprof.csp.advice.proposal import LEAST_GAIN, Proposal, adviser, named
from cspprof.metrics import value_of

WINDOW = ("kernel", "stride", "padding", "dilation")


@adviser("concat-reads")
def concatenations_read_several_times(record: Record) -> list[Proposal]:
    """Concatenations that k convolutions read, which one convolution or a transition could read once."""
    specs, calls = record.specs, record.calls
    readers: dict[int, list[int]] = {}
    for edge in edges(record):
        if edge.source < 0 or edge.target == len(calls.spec):
            continue
        source = specs[calls.spec[edge.source]]
        if source.kind is Kind.CONCAT and edge.tensor.numel == source.writes[0].numel:
            readers.setdefault(edge.source, []).append(edge.target)
    cio = value_of(record, "cio_cspnet")
    found = []
    for concat, targets in readers.items():
        convolutions = [i for i in dict.fromkeys(targets) if specs[calls.spec[i]].kind is Kind.CONV]
        if len(convolutions) < 2:
            continue
        map_ = specs[calls.spec[concat]].writes[0]
        alike = _alike(record, convolutions)
        shape = "×".join(map(str, map_.shape))
        kernel = "×".join(map(str, specs[calls.spec[alike[0]]].attrs.get("kernel", ())))
        saved = (len(alike) - 1) * map_.numel
        action = f"one {kernel} convolution with the outputs of {len(alike)}, and a split behind it"
        narrowed = len(convolutions) * map_.numel // 2 - map_.numel - map_.numel // 2
        if narrowed > saved:
            saved, action = narrowed, "a 1×1 transition that halves its channels in front of the convolutions"
        if saved >= LEAST_GAIN * cio:
            place = record.layers[calls.layer[concat]].path or record.model
            layers = named(record.layers[calls.layer[i]].path for i in convolutions)
            found.append(
                Proposal(f"{place}.cat", f"{len(convolutions)} convolutions read {shape}: {layers}", action,
                         "cio_cspnet", None, cio - saved)
            )  # fmt: skip
    return sorted(found, key=lambda p: p.computed or 0)


def _alike(record: Record, convolutions: list[int]) -> list[int]:
    """The largest part of the convolutions that have one group and the same window."""
    by_window: dict[tuple[object, ...], list[int]] = {}
    for i in convolutions:
        spec: OpSpec = record.specs[record.calls.spec[i]]
        if spec.attrs.get("groups", 1) == 1:
            by_window.setdefault(tuple(map(str, map(spec.attrs.get, WINDOW))), []).append(i)
    return max(by_window.values(), key=len, default=convolutions[:1])
