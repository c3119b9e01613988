"""Change valid inputs at random and read them: each gives a value, or an error that says where and what to do.

    python benchmarks/fuzz.py --minutes 5 [--format cfg,onnx] [--inputs 100000] [--seed 0] [--json FILE]
    python benchmarks/fuzz.py --repeat findings/cfg-1.cfg --format cfg

The formats are those of `fuzz_formats.py`: files, and texts of the command line. A worker process reads one input after
another. An input may take 5 seconds of processor time, and the process may grow by 1 GiB. Anything else than a value or
an error with a message, the name of the file and a hint is a finding: a traceback, a crash, too much time or memory.
The first input of each kind of finding is made smaller and saved, with the command that repeats it.

Exit codes: 0 without a finding, 1 with findings. The same seed tries the same inputs.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz_formats import FORMATS
from fuzz_worker import MEMORY, SECONDS

from cspprof.core.child_process import ChildProcess, ProcessEndedError

WALL_SECONDS = 120.0
"""The longest time in which the process must answer, on a machine that does much else. The worker has a limit of 5
seconds of processor time."""
START_SECONDS = 300.0
TURN_SECONDS = 120.0
"""The time of a format before the next format has its turn. Only one process runs at a time."""
PROCESS_INPUTS = 20_000
"""Inputs of one process: caches of torch and of cspprof grow with the operations that they have seen."""
MINIMIZING_SECONDS = 20.0


class Reader:
    """A worker process for one format. It is started when it is needed, and again after it ended."""

    def __init__(self, name: str, seeds: list[bytes]) -> None:
        self.name = name
        self._first = [name, [_text(seed) for seed in seeds]]
        self._process: ChildProcess | None = None
        self._left = 0

    def outcome(self, data: bytes) -> dict[str, Any]:
        """The verdict on one input, as the worker returns it."""
        if self._process is None or self._left == 0:
            self.close()
            self._process = ChildProcess("fuzz_worker", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
            self._process.response(self._first, START_SECONDS)
            self._left = PROCESS_INPUTS
        self._left -= 1
        try:
            result: dict[str, Any] = self._process.response(_text(data), WALL_SECONDS)
            return result
        except TimeoutError:
            self.close()
            return {"outcome": "finding", "kind": "hang", "place": "waiting", "text": f"after {WALL_SECONDS:g} s"}
        except ProcessEndedError as error:
            self.close()
            if error.signal_name == "SIGPROF":
                return {"outcome": "finding", "kind": "hang", "place": "", "text": f"after {SECONDS:g} s"}
            return {"outcome": "finding", "kind": "crash", "place": str(error)[:80], "text": str(error)}

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Tally:
    """The inputs of one format."""

    inputs: int = 0
    values: int = 0
    refused: int = 0
    findings: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    saved: dict[str, str] = field(default_factory=dict)
    """The file of each kind of finding."""


def mutants(name: str, seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """The seeds of a format, then changed ones without an end. One in five is changed three times."""
    yield from seeds
    rng = Random(f"{name} {seed}")
    while True:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 1, 3))):
            try:
                data = FORMATS[name].mutate(rng, data, seeds)
            except Exception:  # what was changed before is no document any more: zipfile alone has ten errors for that
                break
        yield data


def minimized(reader: Reader, data: bytes, found: dict[str, Any]) -> bytes:
    """A smaller input with the same finding: parts are removed as long as it stays."""
    end = time.monotonic() + MINIMIZING_SECONDS
    size = max(len(data) // 2, 1)
    while size and time.monotonic() < end:
        start = 0
        while start < len(data) and time.monotonic() < end:
            smaller = data[:start] + data[start + size :]
            result = reader.outcome(smaller)
            if key_of(result) == key_of(found):
                data = smaller
            else:
                start += size
        size //= 2
    return data


def key_of(result: dict[str, Any]) -> str:
    """Findings with the same key are one."""
    return f"{result.get('kind', '')} {result.get('place', '')}".strip()


def save(folder: Path, name: str, number: int, data: bytes, found: dict[str, Any]) -> str:
    """Write an input and what it gave; the result is the command that repeats it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{number}{FORMATS[name].ending or '.txt'}"
    path.write_bytes(data)
    command = f"python benchmarks/fuzz.py --repeat {path} --format {name}"
    path.with_name(f"{path.name}.report").write_text(f"{command}\n{key_of(found)}\n{found['text']}\n", encoding="utf-8")
    return command


def run(names: list[str], minutes: float, inputs: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Try inputs of each format in turns, until the time is over or each has had so many."""
    tallies = {name: Tally() for name in names}
    seeds = {name: FORMATS[name].seeds() for name in names}
    readers = {name: Reader(name, seeds[name]) for name in names}
    sources = {name: mutants(name, seeds[name], seed) for name in names}
    end = time.monotonic() + 60 * minutes
    turn_seconds = max(1.0, min(TURN_SECONDS, 60 * minutes / len(names)))
    try:
        while time.monotonic() < end and any(tally.inputs < inputs for tally in tallies.values()):
            for name in names:
                turn_end = min(end, time.monotonic() + turn_seconds)
                while tallies[name].inputs < inputs and time.monotonic() < turn_end:
                    _try_input(name, next(sources[name]), readers[name], tallies[name], folder)
                readers[name].close()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        for reader in readers.values():
            reader.close()
    return tallies


def _try_input(name: str, data: bytes, reader: Reader, tally: Tally, folder: Path) -> None:
    result = reader.outcome(data)
    tally.inputs += 1
    if result["outcome"] == "value":
        tally.values += 1
    elif result["outcome"] == "refused":
        tally.refused += 1
    else:
        tally.findings += 1
        if key_of(result) not in tally.saved:
            small = minimized(reader, data, result)
            tally.saved[key_of(result)] = command = save(folder, name, len(tally.saved) + 1, small, result)
            print(f"{name}: {key_of(result)}\n    {command}", flush=True)
        return
    tally.slowest = max(tally.slowest, result["seconds"])
    tally.seconds += result["seconds"]


def print_table(tallies: dict[str, Tally]) -> None:
    print(f"{'format':<10}{'inputs':>10}{'values':>10}{'refused':>10}{'findings':>10}{'kinds':>7}{'slowest':>9}")
    for name, t in tallies.items():
        print(
            f"{name:<10}{t.inputs:>10,}{t.values:>10,}{t.refused:>10,}{t.findings:>10,}{len(t.saved):>7}"
            f"{t.slowest:>7.2f} s"
        )


def document(tallies: dict[str, Tally], seed: int) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "seed": seed,
        "limits": {"seconds": SECONDS, "bytes": MEMORY},
        "formats": {
            name: {"inputs": t.inputs, "values": t.values, "refused": t.refused, "findings": t.findings,
                   "kinds": sorted(t.saved), "slowest_seconds": round(t.slowest, 2), "seconds": round(t.seconds, 1)}
            for name, t in tallies.items()
        },
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--inputs", type=int, default=10**9, help="the most inputs of each format")
    parser.add_argument("--format", default=",".join(FORMATS), help="formats, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="the folder for findings")
    parser.add_argument("--repeat", type=Path, help="read one input and print what it gives")
    options = parser.parse_args()
    names = options.format.split(",")
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        parser.error(f"no format is named {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    if options.repeat is not None:
        reader = Reader(names[0], FORMATS[names[0]].seeds())
        result = reader.outcome(options.repeat.read_bytes())
        reader.close()
        print(result["outcome"], key_of(result), result.get("text", ""), sep="\n")
        return int(result["outcome"] == "finding")
    tallies = run(names, options.minutes, options.inputs, options.seed, options.findings)
    print_table(tallies)
    if options.json is not None:
        options.json.write_text(json.dumps(document(tallies, options.seed), indent=1) + "\n", encoding="utf-8")
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
