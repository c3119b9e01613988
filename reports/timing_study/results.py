"""From measurements to `study.csv`: each network at each size, in theory and as measured.

The rows need torch, because each network is traced. The scores, pairs and rankings are computed from rows alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cspprof
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import Record
from cspprof.measure.calibration.fit import Sample, best_shape, leave_one_family_out
from cspprof.measure.calibration.kernels import FUSIONS, UNPADDED, Shape, kernels
from cspprof.metrics import value_of
from cspprof.profiles import profile_spec
from cspprof.sources import Request
from timing_study import dram
from timing_study.measurement import DISTURBED, ENGINES_FOR_ALL, ENGINES_FOR_PART, short_batch
from timing_study.networks import Network, by_name, converted
from timing_study.predictors import (
    CALIBRATED,
    DEPTHWISE_WEIGHT,
    PREDICTORS,
    Predictor,
    Score,
    calibration_sample,
    has_depthwise,
    peak_rates,
    predictions,
    roofline_seconds,
    score,
)

ENGINES = (*ENGINES_FOR_ALL, *ENGINES_FOR_PART)
METRICS = ("macs", "activations", "cio_hardnet", "cio_cspnet", "traffic_bytes", "params")
CACHES = {"cache_256kib": 2**18, "cache_2mib": 2**21, "cache_16mib": 2**24}
"""Columns with the traffic behind a cache of so many bytes."""
FACTS = ("name", "size", "source", "family", "plain")

Row = dict[str, Any]
"""A line of `study.csv`: facts, metrics, and for each engine measured and predicted milliseconds; None for a blank."""


# -- rows: trace each network -------------------------------------------------------------------------


def trace(network: Network, size: int) -> Record:
    if network.source == "converted":  # `profile_spec` builds on meta, where a conversion cannot be proven
        return cspprof.profile(converted(network.name.partition(":")[2], device=None), (1, 3, size, size))
    return profile_spec(network.spec, Request(inputs=parse_inputs([f"1x3x{size}x{size}"])))


def rows(measured: Mapping[str, Any]) -> list[Row]:
    """A row for each network and size with a measured time, in the order of `networks()`."""
    times: dict[tuple[str, int], dict[str, list[float]]] = {}
    for engine, name, size, *numbers in measured["times"]:
        times.setdefault((name, size), {})[engine] = numbers
    known = by_name()
    points = [(n, size) for n in known.values() for size in n.sizes if (n.name, size) in times]
    records = {(n.name, size): trace(n, size) for n, size in points}
    zigzag = dram.zigzag_access_of(measured.get("zigzag", []))
    accesses = {(name, size): nbytes for name, size, nbytes in measured["accesses"]}
    found = []
    for n, size in points:
        record = records[n.name, size]
        row: Row = {"name": n.name, "size": size, "source": n.source, "family": n.family, "plain": n.plain}
        row |= {metric: value_of(record, metric) for metric in METRICS}
        weight = DEPTHWISE_WEIGHT if has_depthwise(record) else 1.0
        row["cio_moc"] = round(weight * row["cio_hardnet"])
        parts = kernels(record, FUSIONS["onnxruntime"])
        unaligned = sum(k.macs for k in parts if "unaligned macs" in k.work)
        row |= {"kernels": len(parts), "unaligned": _digits(unaligned / row["macs"])}
        row |= {column: round(dram.cache_traffic(record, capacity)) for column, capacity in CACHES.items()}
        row |= _zigzag_columns(record, zigzag)
        row["counted_bytes"] = accesses.get((n.name, size))
        for engine in ENGINES:
            fastest, median = times[n.name, size].get(engine, [None] * 2)[:2]
            row |= {f"{engine}_ms": fastest, f"{engine}_median": median}
        found.append(row)
    short = _short_records(measured)
    for engine in ENGINES:
        _add_predictions(found, records, short.get(engine, []), engine)
    return found


def _zigzag_columns(record: Record, table: Mapping[dram.Conv, dict[str, dram.DramAccess]]) -> Row:
    """The accesses of all convolutions on each accelerator; blank if one of them was not computed."""
    convs = dram.convolutions(record)
    if not convs or any(conv not in table for conv in convs):
        return {f"{a}_{part}": None for a in dram.ACCELERATORS for part in dram.DramAccess._fields}
    return {
        f"{a}_{part}": sum(getattr(table[conv][a], part) for conv in convs)
        for a in dram.ACCELERATORS
        for part in dram.DramAccess._fields
    }


def _short_records(measured: Mapping[str, Any]) -> dict[str, list[tuple[str, Record, float]]]:
    """Name, record and seconds of the short networks by engine."""
    items = {item.network.name: item for item in short_batch().items}
    records: dict[str, Record] = {}
    found: dict[str, list[tuple[str, Record, float]]] = {}
    for engine, name, _, fastest, *_ in measured["times"]:
        if name in items:
            if name not in records:
                item = items[name]
                records[name] = profile_spec(item.network.spec, Request(inputs=parse_inputs(item.input_texts)))
            found.setdefault(engine, []).append((name, records[name], fastest / 1e3))
    return found


def _add_predictions(
    found: list[Row], records: Mapping[tuple[str, int], Record], short: list[tuple[str, Record, float]], engine: str
) -> None:
    """Add the columns `ENGINE_roofline` and `ENGINE_calibrated`, in milliseconds; blank without short networks.

    The block of channels and the cache of the calibrated model are chosen by the short networks alone, so that no
    network of the study takes part in its own prediction.
    """
    columns = f"{engine}_roofline", f"{engine}_calibrated"
    for row in found:
        row |= dict.fromkeys(columns)
    timed = [row for row in found if row[f"{engine}_ms"] is not None]
    if not short or not timed:
        return
    peaks = peak_rates([(record, seconds) for _, record, seconds in short], engine)

    def short_samples(shape: Shape) -> list[Sample]:
        return [calibration_sample(name, "", record, s, engine, shape) for name, record, s in short]

    shape = best_shape(short_samples) if len(short) > 1 else UNPADDED
    samples = [
        calibration_sample(key(r), r["family"], records[r["name"], r["size"]], r[f"{engine}_ms"] / 1e3, engine, shape)
        for r in timed
    ]
    predicted = {p.name: p.seconds for p in leave_one_family_out(samples, short_samples(shape)).predictions}
    for row in found:
        seconds = roofline_seconds(records[row["name"], row["size"]], engine, peaks)
        row[columns[0]] = _digits(seconds * 1e3)
    for row in timed:
        if key(row) in predicted:
            row[columns[1]] = _digits(predicted[key(row)] * 1e3)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


# -- the file -----------------------------------------------------------------------------------------


def csv_text(table: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def parse_csv(text: str) -> list[Row]:
    """The rows of `csv_text`; numbers are integers where they have no point, and blanks None."""
    return [
        {k: v if k in FACTS and k != "size" else _number(v) for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)


# -- what follows from the rows -----------------------------------------------------------------------


def key(row: Row) -> str:
    return f"{row['name']} @{row['size']}"


def timed(table: Sequence[Row], engine: str) -> list[Row]:
    """The rows with a time on the engine."""
    return [row for row in table if row.get(f"{engine}_ms") is not None]


def engines(table: Sequence[Row]) -> list[str]:
    """The engines that measured at least one network."""
    return [engine for engine in ENGINES if timed(table, engine)]


def predicted_ms(table: Sequence[Row], engine: str, predictor: Predictor) -> dict[str, float]:
    """The predicted milliseconds of each row by its key, from a fit to the other families."""
    found = timed(table, engine)
    if predictor is CALIBRATED:
        return {key(r): r[f"{engine}_calibrated"] for r in found if r[f"{engine}_calibrated"] is not None}
    columns = [f"{engine}_roofline" if c == "roofline" else c for c in predictor.columns]
    if any(row[c] is None for row in found for c in columns):
        return {}
    samples = [Sample(key(r), r["family"], r[f"{engine}_ms"], {c: float(r[c]) for c in columns}) for r in found]
    return predictions(samples)


def scores(table: Sequence[Row], engine: str) -> list[tuple[Predictor, Score]]:
    """The score of each predictor that has predictions on the engine."""
    measured = {key(r): r[f"{engine}_ms"] for r in timed(table, engine)}
    found = []
    for predictor in PREDICTORS:
        predicted = predicted_ms(table, engine, predictor)
        if predicted:
            found.append((predictor, score(predicted, measured)))
    return found


PAIR_COUNTS = ("macs", "cio_hardnet", "cio_cspnet", "traffic_bytes", "cache_2mib", "kernels")


class Pair(dict[str, Any]):
    """A network and its CSP form at one size on one engine: ratios of the CSP form to the plain network."""


def pairs(table: Sequence[Row], engine: str, least: Mapping[tuple[str, int], float]) -> Iterator[Pair]:
    """The pairs that the engine measured. `time` is the ratio of their times, `verdict` *faster*, *slower* or *no
    difference*, if it differs from 1 by at most `least` of the network and size."""
    rows_by = {(r["name"], r["size"]): r for r in timed(table, engine)}
    for row in rows_by.values():
        plain = rows_by.get((row["plain"], row["size"]))
        if plain is None:
            continue
        ratio = row[f"{engine}_ms"] / plain[f"{engine}_ms"]
        verdict = (
            "no difference"
            if abs(ratio - 1) <= least[row["name"], row["size"]]
            else "faster"
            if ratio < 1
            else "slower"
        )
        theory = {m: row[m] / plain[m] for m in PAIR_COUNTS}
        yield Pair(
            engine=engine, name=row["name"], plain=row["plain"], size=row["size"], source=row["source"], time=ratio,
            verdict=verdict, **theory,
        )  # fmt: skip


def least_differences(measured: Mapping[str, Any], engine: str) -> dict[tuple[str, int], float]:
    """The smallest relative difference of times that is claimed, for each network and size: by so much the reference
    network was slower in the same batch than in the best one, but at least `DISTURBED`."""
    return {
        (name, size): max(measured["slowdowns"][batch][engine], DISTURBED)
        for own, name, size, *_, batch in measured["times"]
        if own == engine
    }


def concordance(table: Sequence[Row], engine: str, metric: str, tolerance: float = 0.1) -> tuple[int, int]:
    """Over all two networks of one size whose MACs differ by at most `tolerance`, while the metric differs by more than
    that: how often the one with the smaller metric is faster, and the number of such couples."""
    found = timed(table, engine)
    agree = total = 0
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            if a["size"] != b["size"] or not _close(a["macs"], b["macs"], tolerance):
                continue
            if _close(a[metric], b[metric], tolerance):
                continue
            total += 1
            agree += (a[metric] < b[metric]) == (a[f"{engine}_ms"] < b[f"{engine}_ms"])
    return agree, total


def _close(a: float, b: float, tolerance: float) -> bool:
    return max(a, b) <= (1 + tolerance) * min(a, b)
