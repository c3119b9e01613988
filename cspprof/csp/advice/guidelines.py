"""Two guidelines of ShuffleNetV2 (Ma et al. 2018, section 3): equal channel width minimizes the memory access cost
(G1), and group convolution increases it (G2). CIO is the activation part of that cost."""

from __future__ import annotations

from cspprof.analysis.headline import known_conv_share
from cspprof.core.kinds import Kind
from cspprof.core.record import OpSpec, Record
from cspprof.csp.advice.balance import balanced, without_groups
from cspprof.csp.advice.network_widths import NetworkWidths, WidthGroup
from cspprof.csp.advice.proposal import LEAST_GAIN, Proposal, adviser, named, network_widths
from cspprof.metrics import value_of

LEAST_RATIO = 1.5
"""The least ratio of the two widths of a 1×1 convolution that is called unequal."""


LEAST_CONV_SHARE = 0.9
"""The least share of the MACs in convolutions for advice on grouped convolutions."""


@adviser("equal-width")
def unequal_widths(record: Record) -> list[Proposal]:
    """1×1 convolutions with unequal widths (G1), and the widths with the least CIO at equal MACs."""
    widths = network_widths(record)
    if widths is None:
        return []
    classes = _classes(widths)
    of_root = {g.root: key for key, groups in classes.items() for g in groups}
    pairs: dict[tuple[object, object], list[tuple[str, OpSpec]]] = {}
    for i, path, spec in _convolutions(record):
        if spec.attrs.get("kernel") != (1, 1) or spec.attrs.get("groups", 1) != 1:
            continue
        sides = [widths.roots(c) for c in (widths.reads(i)[0], widths.writes(i)[0])]
        if any(len(side) != 1 for side in sides):
            continue
        first, second = (of_root.get(next(iter(side))) for side in sides)
        if first is None or second is None or first == second:
            continue
        low, high = sorted((first[1], second[1]))
        if high >= LEAST_RATIO * low:
            key = tuple(sorted((first, second)))
            pairs.setdefault((key[0], key[1]), []).append((path, spec))
    cio = value_of(record, "cio_cspnet")
    found = []
    for (one, other), layers in pairs.items():
        first_groups, second_groups = classes[one], classes[other]  # type: ignore[index]  # the keys are those of classes
        result = balanced(record, widths, first_groups, second_groups)
        if result is None:
            continue
        change, after = result
        if cio - value_of(after, "cio_cspnet") < LEAST_GAIN * cio:
            continue
        new = dict(change.widths)
        (path, spec), *_ = sorted(layers, key=lambda layer: -layer[1].reads[0].numel - layer[1].writes[0].numel)
        a, b = spec.reads[0].shape[1], spec.writes[0].shape[1]
        excess = (a + b) / (2 * (a * b) ** 0.5)
        wide, narrow = sorted((first_groups, second_groups), key=lambda g: -g[0].width)
        found.append(
            Proposal(
                named([path, *(p for p, _ in layers)]),
                f"{a} to {b} channels: {excess:.2f} times the least CIO of a 1×1 convolution with its MACs "
                "(G1: equal widths)",
                f"{wide[0].width} channels → {new[wide[0].layers[0]]}, and {narrow[0].width} → "
                f"{new[narrow[0].layers[0]]} at {_size(wide[0])}, with at most the same MACs",
                "cio_cspnet",
                change,
                value_of(after, "cio_cspnet"),
                ("macs", "cio_all"),
            )
        )
    return sorted(found, key=lambda p: p.computed or 0)


@adviser("groups")
def group_convolutions(record: Record) -> list[Proposal]:
    """Grouped convolutions (G2), and the width without groups at equal MACs."""
    return dense_proposals(record, depthwise=False, metric="cio_cspnet")


def dense_proposals(record: Record, depthwise: bool, metric: str) -> list[Proposal]:
    """Proposals to replace grouped convolutions by narrower ones of one group with at most the same MACs. None for a
    network with many MACs outside convolutions: neither CIO nor MoC would see what moves there."""
    widths = network_widths(record)
    if widths is None or (known_conv_share(record) or 0) < LEAST_CONV_SHARE:
        return []
    by_root = {g.root: g for g in widths.groups()}
    classes: dict[tuple[object, ...], list[tuple[str, OpSpec, list[WidthGroup]]]] = {}
    for i, path, spec in _convolutions(record):
        groups, c_in, c_out = int(spec.attrs.get("groups", 1)), spec.reads[0].shape[1], spec.writes[0].shape[1]
        if groups == 1 or c_in != c_out or (groups == c_in) != depthwise or spec.kind is not Kind.CONV:
            continue
        roots = widths.roots(widths.reads(i)[0]) | widths.roots(widths.writes(i)[0])
        if roots <= set(by_root):
            key = (groups if not depthwise else 0, c_in, spec.writes[0].shape[2:])
            classes.setdefault(key, []).append((path, spec, [by_root[r] for r in sorted(roots)]))
    before = value_of(record, metric)
    found = []
    for layers in classes.values():
        unique = {g.root: g for _, _, groups in layers for g in groups}
        paths = list(dict.fromkeys(path for path, _, _ in layers))
        if len({g.width for g in unique.values()}) > 1:
            continue
        result = without_groups(record, widths, list(unique.values()), paths)
        if result is None:
            continue
        width, change, after = result
        now = value_of(after, metric)
        gain = (now - before if metric == "moc" else before - now) / before
        if gain < LEAST_GAIN:
            continue
        spec = layers[0][1]
        old = spec.reads[0].shape[1]
        moc = (spec.macs or 0) / (spec.reads[0].numel + spec.writes[0].numel)
        kind = "depthwise" if depthwise else f"{spec.attrs['groups']} groups"
        finding = f"{kind}, {old} channels: MoC {moc:.1f}, that of the network is {value_of(record, 'moc'):.1f}"
        if not depthwise:
            finding = f"{kind}, {old} channels: each map counts in full for 1/{spec.attrs['groups']} of the MACs (G2)"
        action = f"one group and {width} channels, with at most the same MACs"
        found.append(Proposal(named(paths), finding, action, metric, change, now, ("macs", "cio_all")))
    return sorted(found, key=lambda p: (p.computed or 0) * (-1 if metric == "moc" else 1))


def _classes(widths: NetworkWidths) -> dict[tuple[tuple[int, ...], int], list[WidthGroup]]:
    """The groups of each resolution and width."""
    classes: dict[tuple[tuple[int, ...], int], list[WidthGroup]] = {}
    for group in widths.groups():
        if len(group.resolution) == 2:
            classes.setdefault((group.resolution, group.width), []).append(group)
    return classes


def _convolutions(record: Record) -> list[tuple[int, str, OpSpec]]:
    """The convolutions of maps (N, C, H, W): number of the call, path and spec."""
    calls = record.calls
    return [
        (i, record.layers[layer].path, record.specs[spec])
        for i, (spec, layer) in enumerate(zip(calls.spec, calls.layer, strict=True))
        if record.specs[spec].kind is Kind.CONV and len(record.specs[spec].writes[0].shape) == 4
    ]


def _size(group: WidthGroup) -> str:
    return "×".join(map(str, group.resolution))
