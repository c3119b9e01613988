"""`study.md`: tables and sentences, all computed from `study.csv` and the measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from cspprof.measure.calibration.fit import spearman
from timing_study import counters, dram
from timing_study.measurement import ENGINES_FOR_ALL
from timing_study.predictors import CALIBRATED, PREDICTORS, Score
from timing_study.results import (
    CACHES,
    Pair,
    Row,
    concordance,
    engines,
    least_differences,
    pairs,
    scores,
    timed,
)


class Published(NamedTuple):
    """A line of CSPNet's Table 5: frames per second on an i9-9900K with OpenCV's DNN module, or on a GPU."""

    name: str
    size: int
    fps: int
    note: str = ""


THUNDERNET = (
    "its published speed is derived from the text of the paper, and includes the R-CNN subnet, which our reading lacks"
)
TABLE5 = (
    Published("yolov3_tiny_prn", 416, 71),
    Published("yolov3_tiny", 416, 54),
    Published("thundernet_snet49", 320, 47, THUNDERNET),
    Published("thundernet_snet146", 320, 32, THUNDERNET),
)
"""The networks of Table 5 that have a published CPU time and are in our zoo."""
GOAL, GOAL_RANK = 0.15, 0.95
"""The median error and the rank correlation that the calibrated model should reach on ONNX Runtime."""
TABLE5_ENGINES = ("opencv", "opencv-classic", "onnxruntime", "openvino", "torch")


def page(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [
        _introduction(table, measured),
        _summary(table, measured),
        _score_section(table),
        _failure_section(table),
        _pair_section(table, measured),
        _table5_section(table, measured),
        _dram_section(table, measured),
        _limits(table, measured),
    ]
    return "\n".join(parts)


# -- head ---------------------------------------------------------------------------------------------


def _introduction(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    names = {row["name"] for row in table}
    sources = Counter({row["name"]: row["source"] for row in table}.values())
    machine, versions = measured["machine"], measured["versions"]
    listed = ", ".join(f"{e} {_version(measured, e)}" for e in engines(table))
    counts = ", ".join(f"{len(timed(table, e))} on {e}" for e in engines(table))
    return f"""# Does theory predict the time of a network?

{len(names)} networks at two resolutions each: {sources["zoo"]} of the zoo, among them all plain/CSP pairs,
{sources["timm"]} of timm, and {sources["converted"]} that `cspprof convert` converted. Measured on one thread of an
{machine["cpu"]}, {measured["date"][:10]}, with cspprof {versions["cspprof"]}.

- Engines: {listed}.
- Networks with a time, each resolution counted: {counts}.

`python reports/study.py` measures again. `python reports/study.py --from-saved` writes this page, the figure and
[study.csv](study.csv) again from the committed measurements, [study.json](study.json). The method is that of
[cspprof measure](../docs/measuring.md), with {measured["rounds"]} rounds.

![Measured time against MACs, CIO, traffic and the predictions of the calibrated model.](study.png)

In the last row, a point above 1 is a CSP form that is slower than its plain network. Hollow points are differences that
are too small to claim.
"""


def _version(measured: Mapping[str, Any], engine: str) -> str:
    versions = measured["engines"][engine]["versions"]
    return str(next(iter(versions.values()), "")).partition("+")[0].split("-")[0]


# -- the answers --------------------------------------------------------------------------------------


def _summary(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    lines = ["## In short\n"]
    for engine in (e for e in ENGINES_FOR_ALL if timed(table, e)):
        lines.append(_best_line(table, engine))
    lines += _cio_answers(table, measured)
    return "\n".join(lines) + "\n"


def _best_line(table: Sequence[Row], engine: str) -> str:
    by = dict(scores(table, engine))
    titled = {predictor.title: s for predictor, s in by.items()}
    single = {p.title: s for p, s in by.items() if len(p.columns) == 1 and p.columns != ("roofline",)}
    best = min(single, key=lambda t: single[t].median_error)
    text = (
        f"- **{engine}**: the best single count is *{best}* (median error {_percent(single[best].median_error)}, rank "
        f"correlation {single[best].spearman:.3f}); MACs reach {_error_and_rank(titled['MACs'])}, CIO (CSPNet) "
        f"{_error_and_rank(titled['CIO (CSPNet)'])}, both together {_error_and_rank(titled['MACs and CIO (CSPNet)'])}."
    )
    if CALIBRATED in by:
        s = by[CALIBRATED]
        reached = "reached" if s.median_error <= GOAL and s.spearman >= GOAL_RANK else "not reached"
        text += (
            f" The calibrated model reaches {_error_and_rank(s)}: the goal of 15 % and 0.95 is {reached}; its worst "
            f"prediction is {s.worst_ratio:.2f} times the measured time of {s.worst}."
        )
    return text


def _error_and_rank(s: Score) -> str:
    return f"{_percent(s.median_error)} and {s.spearman:.3f}"


def _cio_answers(table: Sequence[Row], measured: Mapping[str, Any]) -> list[str]:
    found = _all_pairs(table, measured)
    dropped = [p for p in found if p["cio_cspnet"] < 1]
    verdicts = Counter(p["verdict"] for p in dropped)
    fewer = Counter(p["verdict"] for p in found if p["macs"] < 1)
    lines = [
        f"- **Does a drop in CIO mean a drop in time?** In {len(dropped)} measured pairs the CSP form has a lower CIO "
        f"(CSPNet): {verdicts['faster']} times it is faster, {verdicts['slower']} times slower, and "
        f"{verdicts['no difference']} times the difference is too small to claim. Of the {sum(fewer.values())} pairs "
        f"with fewer MACs, {fewer['faster']} are faster and {fewer['slower']} slower."
    ]
    claimed = [p for p in found if p["verdict"] != "no difference"]
    up = max((p for p in claimed if p["verdict"] == "faster"), key=lambda p: p["cio_cspnet"], default=None)
    down = max((p for p in claimed if p["verdict"] == "slower" and p["cio_cspnet"] < 1), key=_time, default=None)
    lines += [
        f"- {text}: {p['name']} against {p['plain']} at {p['size']} on {p['engine']}: CIO (CSPNet) × "
        f"{p['cio_cspnet']:.2f}, MACs × {p['macs']:.2f}, time × {p['time']:.2f}."
        for text, p in (("Faster with the largest rise of CIO", up), ("Slower with a lower CIO", down))
        if p is not None
    ]
    lines.append(f"- **What a pair's time follows**: {'; '.join(_pair_ranks(table, measured))}.")
    lines += [*_table5_answer(table), *_zigzag_answer(measured)]
    for engine in (e for e in ENGINES_FOR_ALL if timed(table, e)):
        agree, total = concordance(table, engine, "cio_cspnet")
        traffic, of = concordance(table, engine, "traffic_bytes")
        if total and of:
            lines.append(
                f"- **At equal MACs** (within 10 %, {engine}): of {total} couples of networks, the one with the lower "
                f"CIO (CSPNet) is the faster one in {_percent(agree / total)}; the one with the lower traffic in "
                f"{_percent(traffic / of)} of {of}. By chance, it would be 50 %."
            )
    return lines


def _pair_ranks(table: Sequence[Row], measured: Mapping[str, Any]) -> list[str]:
    """For each engine that measured all networks, what the ratios of times are correlated with."""
    found = []
    for engine in (e for e in ENGINES_FOR_ALL if timed(table, e)):
        own = list(pairs(table, engine, least_differences(measured, engine)))
        counts = (("MACs", "macs"), ("CIO (CSPNet)", "cio_cspnet"), ("traffic", "traffic_bytes"))
        ranks = {title: spearman([p[c] for p in own], [p["time"] for p in own]) for title, c in counts}
        texts = [f"{title} {_signed_number(rank)}" for title, rank in ranks.items() if rank is not None]
        found.append(f"rank correlation of the ratio of times on {engine} with that of {', '.join(texts)}")
    return found


def _zigzag_answer(measured: Mapping[str, Any]) -> list[str]:
    layers = dram.zigzag_access_of(measured.get("zigzag", []))
    if not layers:
        return []
    equal = {a: sum(access[a].maps == conv.cio for conv, access in layers.items()) for a in dram.ACCELERATORS}
    texts = " and ".join(f"{n} on {a}" for a, n in equal.items())
    return [
        f"- **Is CIO the right metric?** For one layer on an accelerator, yes: of {len(layers)} convolutions, ZigZag "
        f"finds that exactly the CIO moves to and from DRAM for {texts}. CIO leaves out weights, and what a cache or a "
        "fusion keeps between layers; see below."
    ]


def _time(pair: Pair) -> float:
    return float(pair["time"])


# -- prediction ---------------------------------------------------------------------------------------


def _score_section(table: Sequence[Row]) -> str:
    text = """## How well does each number rank and predict time?

Each number is multiplied by a time per unit. That time is fitted, by relative least squares, to all families except the
one that is predicted. *Rank* is Spearman's correlation of predicted and measured times, *R²* the coefficient of
determination of their logarithms; *mean* and *median* are absolute relative errors; *worst* is the most wrong
prediction divided by the measured time.

- *CIO weighted by MoC* is CIO (HarDNet), times 0.6 for networks with depthwise convolutions, as its authors suggest.
- *Traffic* is `traffic_bytes`: all operations, with weights, without fusion.
- *Roofline* has the highest rates that a short network of `cspprof calibrate` reached on this engine, and the fusions
  of the engine.
- *Calibrated model*: `--machine calibrated`, fitted to those short networks and to the other families of the study.
"""
    for engine in engines(table):
        found = scores(table, engine)
        heads = ["predictor", "networks", "rank", "R²", "mean", "median", "worst", "which"]
        lines = [
            [p.title, str(s.n), _signed_number(s.spearman, 3), _signed_number(s.r2), _percent(s.mean_error),
             _percent(s.median_error),
             f"{s.worst_ratio:.2f}", s.worst]
            for p, s in found
        ]  # fmt: skip
        text += f"\n### {engine}\n\n{_markdown(heads, lines, numeric=range(1, 7))}"
        missing = [p.title for p in PREDICTORS if p not in dict(found)]
        if missing:
            text += f"\nNot available on {engine}: {', '.join(missing)}; the short networks were not measured on it.\n"
    return text


def _failure_section(table: Sequence[Row]) -> str:
    """The families that the calibrated model predicts badly."""
    text = f"""### Where the calibrated model fails

Families whose median error is above {_percent(GOAL)}; below 0, the prediction is too low.

"""
    lines = []
    for engine in (e for e in ENGINES_FOR_ALL if timed(table, e)):
        errors: dict[str, list[float]] = {}
        for row in timed(table, engine):
            if row[f"{engine}_calibrated"] is not None:
                error = row[f"{engine}_calibrated"] / row[f"{engine}_ms"] - 1
                errors.setdefault(row["family"], []).append(error)
        worst = sorted(((median(found), f) for f, found in errors.items()), key=lambda pair: -abs(pair[0]))
        bad = [f"{family} {_signed(error)}" for error, family in worst if abs(error) > GOAL]
        lines.append([engine, f"{len(bad)} of {len(errors)}", ", ".join(bad) or "none"])
    return text + _markdown(["engine", "families", "which, with the median error"], lines, numeric=(1,))


def _signed(value: float) -> str:
    return f"{100 * value:+.0f} %".replace("-", "−")


def _signed_number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


# -- pairs --------------------------------------------------------------------------------------------


def _all_pairs(table: Sequence[Row], measured: Mapping[str, Any]) -> list[Pair]:
    return [p for e in engines(table) for p in pairs(table, e, least_differences(measured, e))]


def _pair_section(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    found = _all_pairs(table, measured)
    text = """## Does a drop in CIO mean a drop in time?

Every CSP form beside its plain network, as ratios: below 1, the CSP form has less. A difference of times is claimed
(*faster*, *slower*) if it is above 5 %, and above the slowdown of the batch by other programs (see *Limits*). Both
networks of a pair are in the same batch.
"""
    text += "\n" + _verdict_table(found)
    text += "\n" + _slower_section(table, found)
    text += "\n### All pairs\n\n" + _pair_table(table, found)
    return text


def _verdict_table(found: Sequence[Pair]) -> str:
    """How often a lower or higher count goes with a lower or higher time, by engine."""
    lines = []
    for engine in dict.fromkeys(p["engine"] for p in found):
        own = [p for p in found if p["engine"] == engine]
        for title, metric in (("MACs", "macs"), ("CIO (CSPNet)", "cio_cspnet"), ("CIO (HarDNet)", "cio_hardnet"),
                              ("traffic", "traffic_bytes")):  # fmt: skip
            less = Counter(p["verdict"] for p in own if p[metric] < 1)
            more = Counter(p["verdict"] for p in own if p[metric] > 1)
            cells = [str(c[v]) for c in (less, more) for v in ("faster", "no difference", "slower")]
            ranks = spearman([p[metric] for p in own], [p["time"] for p in own])
            lines.append([engine, title, *cells, "" if ranks is None else _signed_number(ranks)])
    heads = ["engine", "count", "lower: faster", "same", "slower", "higher: faster", "same", "slower", "rank"]
    text = _markdown(heads, lines, numeric=range(2, 9))
    return text + "\n*rank*: Spearman's correlation of the ratios of the count and of the times.\n"


def _slower_section(table: Sequence[Row], found: Sequence[Pair]) -> str:
    slower = sorted((p for p in found if p["verdict"] == "slower"), key=lambda p: -p["time"])
    text = f"### Pairs where CSP is slower: {len(slower)} of {len(found)}\n\n"
    if not slower:
        return text
    counts = ("macs", "cio_cspnet", "traffic_bytes", "kernels")
    shares = {(row["name"], row["size"]): _percent(row["unaligned"]) for row in table}
    lines = [
        [
            p["engine"],
            p["name"],
            p["plain"],
            str(p["size"]),
            *(f"{p[c]:.2f}" for c in ("time", *counts)),
            shares[p["name"], p["size"]],
        ]
        for p in slower
    ]
    heads = ["engine", "CSP form", "plain", "size", "time", "MACs", "CIO (CSPNet)", "traffic", "kernels", "unaligned"]
    text += _markdown(heads, lines, numeric=range(3, 10))
    fewer = sum(p["macs"] < 1 for p in slower)
    lower = sum(p["cio_cspnet"] < 1 for p in slower)
    return text + (
        f"\n{fewer} of them have fewer MACs than the plain network, {lower} a lower CIO (CSPNet). *unaligned*: the "
        "share of the MACs in convolutions whose widths do not fit blocks of 4 channels; engines have slow kernels for "
        "them.\n"
    )


def _pair_table(table: Sequence[Row], found: Sequence[Pair]) -> str:
    """One line for each pair and size, with the time ratio on each engine."""
    by: dict[tuple[str, int], dict[str, Pair]] = {}
    for p in found:
        by.setdefault((p["name"], p["size"]), {})[p["engine"]] = p
    columns = engines(table)
    lines = []
    for (name, size), own in by.items():
        p = next(iter(own.values()))
        theory = [f"{p[m]:.2f}" for m in ("macs", "cio_cspnet", "cio_hardnet", "traffic_bytes")]
        lines.append([name, p["plain"], str(size), *theory, *(_time_cell(own.get(e)) for e in columns)])
    heads = ["CSP form", "plain", "size", "MACs", "CIO (CSPNet)", "CIO (HarDNet)", "traffic", *columns]
    note = "\n**Bold**: slower, claimed. In parentheses: too close to 1 to be claimed.\n"
    return _markdown(heads, lines, numeric=range(2, len(heads))) + note


def _time_cell(pair: Pair | None) -> str:
    if pair is None:
        return "–"
    text = f"{pair['time']:.2f}"
    return {"slower": f"**{text}**", "faster": text}.get(pair["verdict"], f"({text})")


# -- Table 5 ------------------------------------------------------------------------------------------


def _table5_section(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    opencv4 = {(name, size): {"opencv4_ms": ms} for name, size, ms in measured.get("opencv4", ())}
    rows = {(r["name"], r["size"]): {**r, **opencv4.get((r["name"], r["size"]), {"opencv4_ms": None})} for r in table}
    found = [p for p in TABLE5 if (p.name, p.size) in rows]
    text = """## Table 5 of CSPNet again

The networks of Table 5 that have a published time on a CPU and are in our zoo, as ranks and as speed relative to
YOLOv3-tiny. Published: an i9-9900K, OpenCV's DNN module, no quantization. Here: one thread. Absolute times belong to a
machine, so only ranks and ratios are compared.
"""
    if not any(p.name == "yolov3_tiny" for p in found):
        return text + "\nNot measured.\n"
    columns = [e for e in ("opencv4", *TABLE5_ENGINES) if any(rows[p.name, p.size][f"{e}_ms"] for p in found)]
    base = next(p for p in found if p.name == "yolov3_tiny")

    def speeds(engine: str) -> list[float]:
        """Frames per second; 0 without a time."""
        return [1e3 / (rows[p.name, p.size][f"{engine}_ms"] or float("inf")) for p in found]

    lines = []
    for i, p in enumerate(found):
        cells = [p.name, str(p.size), str(p.fps), f"{_rank([x.fps for x in found], i)}", f"{p.fps / base.fps:.2f}"]
        for engine in columns:
            own = speeds(engine)
            ratio = own[i] / own[found.index(base)] if own[found.index(base)] else 0.0
            cells += [f"{own[i]:.1f}", str(_rank(own, i)), f"{ratio:.2f}" if ratio else "–"] if own[i] else ["–"] * 3
        lines.append(cells)
    heads = ["network", "size", "published fps", "rank", "ratio"]
    for engine in columns:
        heads += [f"{_table5_title(engine)} fps", "rank", "ratio"]
    text += "\n" + _markdown(heads, lines, numeric=range(1, len(heads)))
    for engine in columns:
        both = [(p.fps, speed) for p, speed in zip(found, speeds(engine), strict=True) if speed]
        rank = spearman([fps for fps, _ in both], [speed for _, speed in both])
        if rank is not None and len(both) > 2:
            text += (
                f"\n- Rank correlation with the published speeds on {_table5_title(engine)}: {_signed_number(rank)}."
            )
    if opencv4:
        text += (
            f"\n- OpenCV 4: version {measured['opencv4_version']}, one process, the fastest of 45 forward passes. As "
            "for the paper, its importer reads the authors' cfgs, here with random weights; ThunderNet comes from ONNX."
        )
    notes = dict.fromkeys(p.note for p in found if p.note)
    text += "".join(f"\n- ThunderNet: {note}." for note in notes)
    text += "\n- –: the engine computes a wrong output or none; see the end of the page."
    return text + (
        "\n- CSPDenseNetb-Ref-PRN (102 fps) and CSPPeleeNet-Ref-PRN(3l) (52 fps) have no public definition. "
        "CSPPeleeNet-Ref-EFM has no published time on a CPU.\n"
    )


def _table5_title(engine: str) -> str:
    return "OpenCV 4" if engine == "opencv4" else engine


def _rank(values: Sequence[float], i: int) -> int:
    return 1 + sum(v > values[i] for v in values)


def _table5_answer(table: Sequence[Row]) -> list[str]:
    """The one ratio of Table 5 between networks whose definitions are public."""
    rows = {(r["name"], r["size"]): r for r in table}
    tiny, prn = rows.get(("yolov3_tiny", 416)), rows.get(("yolov3_tiny_prn", 416))
    if tiny is None or prn is None:
        return []
    ratios = [
        f"{tiny[f'{e}_ms'] / prn[f'{e}_ms']:.2f} on {e}" for e in TABLE5_ENGINES if tiny[f"{e}_ms"] and prn[f"{e}_ms"]
    ]
    fps = {p.name: p.fps for p in TABLE5}
    printed = f"{fps['yolov3_tiny_prn'] / fps['yolov3_tiny']:.2f}"
    return [
        f"- **Table 5**: in print, YOLOv3-tiny-PRN is {printed} times as fast as YOLOv3-tiny; here {', '.join(ratios)}."
    ]


# -- DRAM ---------------------------------------------------------------------------------------------


def _dram_section(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    text = """## Is CIO the right measure of memory traffic?

CIO assumes that each convolution reads its input from memory and writes its output there, once. Two models say what a
memory would see.

**A cache.** Our model: fully associative, least recently used, written back, with the kernels of an engine that fuses;
tiles are rows of maps and 64 KiB of weights (`reports/timing_study/dram.py`). Over all networks:
"""
    cio = [4.0 * row["cio_cspnet"] for row in table]
    lines = []
    for column, capacity in CACHES.items():
        values = [float(row[column]) for row in table]
        ratios = [v / c for v, c in zip(values, cio, strict=True)]
        activations = [float(row[column] - 4 * row["params"]) for row in table]
        own = [f"{capacity // 2**10:,} KiB", _rank_text(values, cio), _rank_text(activations, cio)]
        own += [_rank_text(values, [float(r["traffic_bytes"]) for r in table])]
        lines.append([*own, f"{min(ratios):.2f}", f"{median(ratios):.2f}", f"{max(ratios):.2f}"])
    heads = ["cache", "rank with CIO (CSPNet)", "without weights", "rank with traffic", "least", "median", "most"]
    text += "\n" + _markdown(heads, lines, numeric=range(1, 7))
    text += "\n*least*, *median* and *most* are the bytes behind the cache divided by 4 × CIO (CSPNet).\n"
    text += "\n" + _zigzag_text(table, measured)
    return text + "\n" + _counter_text(table, measured)


def _counter_text(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    """What hardware counters say, or why there are none."""
    found = [row for row in table if row["counted_bytes"]]
    if not found:
        return f"**Hardware counters** are missing: {measured['no_counters']}.\n"
    counted = [float(row["counted_bytes"]) for row in found]
    columns = {"CIO (CSPNet)": "cio_cspnet", "traffic": "traffic_bytes", "MACs": "macs"} | {
        f"the cache of {capacity // 2**10:,} KiB": column for column, capacity in CACHES.items()
    }
    ranks = ", ".join(f"{t} {_rank_text(counted, [float(r[c]) for r in found])}" for t, c in columns.items())
    return (
        f"**Hardware counters** ({' and '.join(counters.EVENTS)} × {counters.LINE_BYTES} bytes, ONNX Runtime, "
        f"{len(found)} networks): rank correlation with {ranks}.\n"
    )


def _rank_text(a: Iterable[float], b: Iterable[float]) -> str:
    rank = spearman(list(a), list(b))
    return "–" if rank is None else f"{rank:.3f}"


def _zigzag_text(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    own = [row for row in table if row["name"] in dram.ZIGZAG_NETWORKS and row["size"] == dram.ZIGZAG_SIZE]
    layers = dram.zigzag_access_of(measured.get("zigzag", []))
    if not own or not layers:
        return "**ZigZag** was not run: `pip install zigzag-dse six`, then `python reports/study.py --zigzag`.\n"
    size = f"{dram.ZIGZAG_SIZE}×{dram.ZIGZAG_SIZE}"
    text = f"""**ZigZag** {measured["zigzag_version"]} (Mei et al. 2021), a published model of accelerators: each of
{len(layers)} different convolutions of {len(own)} networks at {size}, with the loop order of the least energy, on two
accelerators that come with it; 8-bit elements. Each layer starts and ends in DRAM.

"""
    lines = []
    for row in own:
        cells = [row["name"], f"{row['cio_hardnet'] / 1e6:.2f}"]
        for a in dram.ACCELERATORS:
            maps, weights = row[f"{a}_maps"], row[f"{a}_weights"]
            cells += [f"{maps / 1e6:.2f}", f"{maps / row['cio_hardnet']:.3f}", f"{weights / 1e6:.2f}"]
        lines.append(cells)
    heads = ["network", "CIO (HarDNet) M"]
    for a in dram.ACCELERATORS:
        heads += [f"{a}: maps M", "/ CIO", "weights M"]
    text += _markdown(heads, lines, numeric=range(1, len(heads)))
    for a in dram.ACCELERATORS:
        equal = sum(access[a].maps == conv.cio for conv, access in layers.items())
        maps = [float(row[f"{a}_maps"]) for row in own]
        whole = [float(row[f"{a}_maps"] + row[f"{a}_weights"]) for row in own]
        cio = [float(row["cio_hardnet"]) for row in own]
        per_layer = _rank_text([float(x[a].maps) for x in layers.values()], [float(c.cio) for c in layers])
        text += (
            f"\n- {a}: the accesses to maps in DRAM equal CIO in {equal} of {len(layers)} layers; rank correlation "
            f"over layers {per_layer}, over networks {_rank_text(maps, cio)}, with weights {_rank_text(whole, cio)}."
        )
    return text + "\n"


# -- limits -------------------------------------------------------------------------------------------


def _limits(table: Sequence[Row], measured: Mapping[str, Any]) -> str:
    failures = [
        [name, str(size), engine or "all", reason.replace("|", "/").partition(". ")[0]]
        for name, size, engine, reason in measured["failures"]
    ]
    busy = _percent(measured["other_cpu_share"])
    samples = round(median(row[5] for row in measured["times"] if row[1] in {r["name"] for r in table}))
    slowdowns = [max(found.values()) for found in measured["slowdowns"].values()]
    middle, most = _percent(median(slowdowns)), _percent(max(slowdowns))
    text = f"""## Limits

- One machine, one thread, batch 1, float32, random weights. Other programs used at most {busy} of its CPUs.
- The time is the fastest of about {samples} samples, because other programs ran on the machine. The table has medians
  too.
- The networks were measured in {len(slowdowns)} batches. One network was part of each batch. It was slower than in the
  best batch by {middle} (median, on the most disturbed engine) and by at most {most}; by so much times of different
  batches may be wrong.
- Networks of one family resemble each other, so {len(measured["times"])} measurements are fewer independent ones.
"""
    if failures:
        text += "\nNot measured, because there is no time for a wrong output or none at all:\n\n"
        text += _markdown(["network", "size", "engine", "reason"], failures, numeric=(1,))
    return text


# -- Markdown -----------------------------------------------------------------------------------------


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.1f} %"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    right = set(numeric)
    rule = ["---:" if i in right else "---" for i in range(len(heads))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *(list(map(_escape, c)) for c in lines)))


def _escape(text: str) -> str:
    return text.replace("_", "\\_") if "_" in text and "`" not in text else text
