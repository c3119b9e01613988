"""`cspprof watch` on a ResNet-50 in two files: the time from a save to its printed answer, and the growth of memory.

Each save gives one stage another width, so that most layers have new shapes. The clock starts before the file is
renamed into its place and stops when the answer has arrived in a pipe. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

BLOCKS = """\
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, c_in, width, stride):
        super().__init__()
        c_out = 4 * width

        def conv(i, o, k, s=1):
            return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o))

        self.a, self.b, self.c = conv(c_in, width, 1), conv(width, width, 3, stride), conv(width, c_out, 1)
        self.shortcut = conv(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.c(self.act(self.b(self.act(self.a(x)))))
        return self.act(y + self.shortcut(x))
"""
NET = """\
from blocks import Bottleneck
from torch import nn

WIDTHS = (64, 128, {width}, 512)


class ResNet50(nn.Module):
    example_input_shape = (1, 3, 224, 224)

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for stage, (width, depth) in enumerate(zip(WIDTHS, (3, 4, 6, 3))):
            for block in range(depth):
                layers.append(Bottleneck(channels, width, 2 if stage and not block else 1))
                channels = 4 * width
        self.features = nn.Sequential(*layers)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 1000)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))
"""
CONFIG = """\
[models.net]
target = "net.py:ResNet50"

[[rules]]
id = "macs"
metric = "macs"
max_increase = "2%"

[[rules]]
id = "cio"
metric = "cio"
max_increase = "2%"
"""


def save(file: Path, text: str) -> float:
    """Write the file as editors do; return the time before it is in its place."""
    other = file.with_suffix(".tmp")
    other.write_text(text)
    began = time.perf_counter()
    other.replace(file)
    return began


class Measured(NamedTuple):
    """The times and the memory of a series of saves."""

    times: list[float]
    """Milliseconds to the answer of each save."""
    cpu_ms: float
    """CPU time of the process for each save, with the work after an answer."""
    first_bytes: int
    """Resident memory after the first save."""
    last_bytes: int


def measure(folder: Path, saves: int, rules: bool) -> Measured:
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "net.py").write_text(NET.format(width=256))
    command = [sys.executable, "-m", "cspprof"]
    if rules:
        (folder / "cspprof.toml").write_text(CONFIG)
        subprocess.run([*command, "check", "--update-baseline"], cwd=folder, check=True, capture_output=True)
    command += ["watch", "net.py:ResNet50"]
    watch = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watch.stdout is not None
    assert watch.stderr is not None
    process, times, sizes = psutil.Process(watch.pid), [], []
    try:
        while b"Ctrl-C ends" not in (line := watch.stderr.readline()):
            if not line:
                raise SystemExit("cspprof watch has ended")
        os.read(watch.stdout.fileno(), 1 << 20)
        before = process.cpu_times()
        for number in range(1, saves + 1):
            time.sleep(0.3)  # until the watch waits again
            began = save(folder / "net.py", NET.format(width=256 + 8 * number))
            answer = b""
            while f"version {number + 1}".encode() not in answer or not answer.endswith(b"\n"):
                answer += os.read(watch.stdout.fileno(), 1 << 20)
            times.append((time.perf_counter() - began) * 1000)
            sizes.append(process.memory_info().rss)
        after = process.cpu_times()
    finally:
        watch.kill()
        watch.wait()
    cpu = after.user + after.system - before.user - before.system
    return Measured(times, cpu / saves * 1000, sizes[0], sizes[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=50)
    saves = parser.parse_args().saves
    print("| | median | fastest | slowest | CPU time | memory after the first save | after the last |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for rules in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), saves, rules)
        name = "with two rules and a baseline" if rules else "changes only"
        values = [statistics.median(found.times), min(found.times), max(found.times), found.cpu_ms]
        memory = [f"{size / 2**20:.0f} MiB" for size in (found.first_bytes, found.last_bytes)]
        print(f"| {' | '.join([name, *(f'{value:.0f} ms' for value in values), *memory])} |")


if __name__ == "__main__":
    main()
