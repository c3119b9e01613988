"""What commands print at 80, 100 and 120 columns: `python tests/table_snapshots.py` writes `data/tables.txt` again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parent / "data" / "tables.txt"
MARK = "$ COLUMNS="
COMMANDS = (
    "profile csp_resnext50",
    "profile csp_resnext50 --layers --top 4",
    "profile csp_resnext50 --layers --all --top 4",
    "profile csp_resnext50 --by stage",
    "profile csp_resnext50 --columns kind,live_bytes,moc,cio --top 4",
    "cio resnext50 csp_resnext50",
    "cio csp_densenet121 csp_densenet169 csp_darknet53_panet_spp",
    "bottleneck csp_resnext50 --metric peak_bytes --top 4",
    "compare resnet50 csp_resnet50 vgg16 --metric params,macs,cio,peak_bytes --format latex",
    "compare resnet50 csp_resnet50 vgg16 --metric params,macs,cio,peak_bytes --format markdown",
    "compare resnet50 csp_resnet50 vgg16 resnet10",
    "whatif resnext50 --size 224,256",
)
WIDTHS = (80, 100, 120)


def snapshots() -> list[tuple[int, str, str]]:
    """The width, command and output of each snapshot."""
    parts = FILE.read_text(encoding="utf-8").split(MARK)[1:]
    result = []
    for part in parts:
        head, _, output = part.partition("\n")
        width, _, command = head.partition(" cspprof ")
        result.append((int(width), command, output.removesuffix("\n")))
    return result


def main() -> None:
    texts = []
    for command in COMMANDS:
        for width in WIDTHS[: 1 if "--format" in command else None]:
            environment = {**os.environ, "COLUMNS": str(width), "NO_COLOR": "1"}
            words = [sys.executable, "-m", "cspprof", *command.split()]
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
            texts.append(f"{MARK}{width} cspprof {command}\n{done.stdout}\n")
    FILE.write_text("".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main()
