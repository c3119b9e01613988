"""Does theory predict the time of a network? `python reports/study.py` measures it and writes `study.md`.

It takes at most 40 minutes on two cores, and continues where an earlier run stopped. It writes `study.json`, the
measurements, and from them `study.csv`, the page `study.md` and the figure `study.png`.

`--from-saved` measures nothing and writes the last three again from `study.json`. `--check` writes nothing and fails if
they are stale. `--quick` measures a few networks, into the folder `build/quick`. `--zigzag` adds the accesses that the
hardware model ZigZag counts (`pip install zigzag-dse six`); they do not depend on the machine.

`--opencv4 FOLDER` adds the times of Table 5 by OpenCV 4, which reads Darknet's cfgs. It measures with the OpenCV that
Python finds first, so install 4.12 beside the other one: `pip install --target opencv4 --no-deps
opencv-python-headless==4.12.0.88`, then `PYTHONPATH=opencv4 python reports/study.py --opencv4 cfg`, where the folder
`cfg` has the authors' files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from timing_study import dram, measurement, results
from timing_study.figure import figure
from timing_study.networks import by_name, networks
from timing_study.page import page

HERE = Path(__file__).parent
MINUTES = 37
"""The time after which no batch is begun. The rest of the 40 minutes is for the last batch and the analysis."""
QUICK = ("resnet10", "csp_resnet10", "peleenet", "csp_peleenet", "yolov3_tiny", "yolov3_tiny_prn")
QUICK_SHORT = ("conv3_64_64_64_at_56", "conv1_64_256_64_256_at_56", "conv3dw_144_144_144_144_144_144_144_at_56")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    target = HERE / "build" / "quick" if options.quick else HERE
    if options.check:
        stale = stale_files(target)
        for name in stale:
            print(f"reports/{name} is stale: run python reports/study.py --from-saved", file=sys.stderr)
        return 1 if stale else 0
    work = HERE / "build" / ("quick" if options.quick else "study") / "batches"
    if options.zigzag:
        add_zigzag(target / "study.json", work.parent / "zigzag.json")
    elif options.opencv4 is not None:
        add_opencv4(target / "study.json", options.opencv4)
    elif not options.from_saved and not measure(work, options.quick, options.minutes, target / "study.json"):
        print(f"{options.minutes:g} minutes are over: run it again to measure the rest", file=sys.stderr)
        return 1
    write_page(target)
    return 0


def measure(work: Path, quick: bool, minutes: float, saved: Path) -> bool:
    """Measure what has no file in `work`, and write `saved`. Returns whether all batches were measured."""
    rounds = 1 if quick else measurement.ROUNDS
    finished = measurement.measure(_batches(quick), work, minutes * 60, rounds, repeat=not quick)
    documents = {p.stem: json.loads(p.read_text()) for p in sorted(work.glob("*.json"))}
    if documents:
        document = measurement.merged(documents)
        kept = json.loads(saved.read_text()) if saved.exists() else {}
        document |= {k: v for k, v in kept.items() if k.startswith(("zigzag", "opencv4"))}  # measured apart
        write_json(saved, document)
    return finished


def _batches(quick: bool) -> list[measurement.Batch]:
    if not quick:
        return measurement.batches(networks())
    known = by_name()
    found = measurement.batches([known[name] for name in QUICK], batch_size=100, part=("opencv",))
    return [measurement.short_batch(QUICK_SHORT), *found[1:]]


def add_opencv4(saved: Path, cfgs: Path) -> None:
    """Add the times of Table 5 by the OpenCV 4 that this process imports."""
    from timing_study import opencv4

    document = json.loads(saved.read_text())
    write_json(saved, document | {"opencv4_version": opencv4.cv2.__version__, "opencv4": opencv4.rows(cfgs)})


def add_zigzag(saved: Path, work: Path) -> None:
    """Add the accesses by ZigZag to the saved measurements."""
    records = [results.trace(by_name()[name], dram.ZIGZAG_SIZE) for name in dram.ZIGZAG_NETWORKS]
    work.parent.mkdir(parents=True, exist_ok=True)
    table = dram.zigzag_table(records, work)
    document = json.loads(saved.read_text())
    write_json(saved, document | {"zigzag_version": version("zigzag-dse"), "zigzag": table})


def write_json(path: Path, document: dict[str, Any]) -> None:
    """The document with one line for each row of a list, so that it is compact and a change is readable."""
    parts = []
    for name, value in document.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in value)
            parts.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def write_page(folder: Path) -> None:
    """Write the table, the page and the figure from `study.json` in the folder."""
    measured = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    text = results.csv_text(results.rows(measured))
    (folder / "study.csv").write_text(text, encoding="utf-8")
    table = results.parse_csv(text)
    (folder / "study.md").write_text(page(table, measured), encoding="utf-8")
    (folder / "study.png").write_bytes(figure(table, measured))


def stale_files(folder: Path) -> list[str]:
    """The names of text files that do not follow from `study.json`."""
    measured = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    text = results.csv_text(results.rows(measured))
    current = {"study.csv": text, "study.md": page(results.parse_csv(text), measured)}
    return [name for name, content in current.items() if (folder / name).read_text(encoding="utf-8") != content]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = p.add_mutually_exclusive_group()
    what.add_argument("--from-saved", action="store_true", help="measure nothing; use study.json")
    what.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    what.add_argument(
        "--opencv4", type=Path, metavar="FOLDER", help="measure only Table 5 with OpenCV 4; the folder of the cfgs"
    )
    what.add_argument("--zigzag", action="store_true", help="measure nothing; add the accesses by ZigZag")
    p.add_argument("--quick", action="store_true", help="a few networks, one round")
    p.add_argument("--minutes", type=float, default=MINUTES, help="the time after which no batch is begun")
    return p


if __name__ == "__main__":
    sys.exit(main())
