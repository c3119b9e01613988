"""Train a small ResNet and its converted twin on the digits of scikit-learn: `python reports/learning.py`.

The script writes `learning.csv` and `learning.md`: the accuracy of each network for each seed, and what they cost. It
takes about five minutes of CPU time. Results of a training differ in the last digits between processors, so no test
compares these files byte by byte; `tests/test_learning.py` trains the networks again.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sklearn
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import cspprof

HERE = Path(__file__).parent
INPUT = (1, 1, 32, 32)
SEEDS = (0, 1, 2)
EPOCHS = 16
BATCH = 64
FUSIONS = ("csp", "first", "last")
TEST_IMAGES = 597
"""A third of the 1797 images. The others train."""
METRICS = ("params", "macs", "cio_cspnet", "peak_bytes")


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2015): (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet for small images (He et al. 2015, section 4.2), here with a strided stem, because the images are small
    ones that were enlarged; with three blocks per stage ResNet-20. (N, 1, 32, 32) -> logits (N, 10).
    """

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths = [width, width, 2 * width, 4 * width]
        self.stages = nn.Sequential()
        for i in (1, 2, 3):
            first = Block(widths[i - 1], widths[i], 1 if i == 1 else 2)
            self.stages.append(nn.Sequential(first, *(Block(widths[i], widths[i]) for _ in range(depth - 1))))
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return y


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits: images (N, 1, 32, 32), upscaled from 8×8, with mean 0 and variance 1; and labels (N)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: torch.Tensor | slice) -> Digits:
        return Digits(self.images[which], self.labels[which])


def digits() -> tuple[Digits, Digits]:
    """The training and the test images, in the same order each time."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None]
    images = F.interpolate((images - images.mean()) / images.std(), size=INPUT[2:], mode="bilinear")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    whole = Digits(images, torch.tensor(data.target))[order]
    return whole[slice(TEST_IMAGES, None)], whole[slice(TEST_IMAGES)]


def initialize(model: nn.Module, seed: int) -> None:
    """New random weights for every layer (He et al. 2015), also for those that a conversion took over."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, (nn.BatchNorm2d, nn.Linear)):
            module.reset_parameters()


def accuracy(model: nn.Module, seed: int, epochs: int = EPOCHS) -> float:
    """The accuracy on the test images, from 0 to 1, after a training from random weights.

    SGD with momentum, one cycle of the learning rate; images are moved by up to two pixels. It runs in one thread, so
    that the number of cores does not change the result.
    """
    torch.set_num_threads(1)
    train, test = digits()
    initialize(model, seed)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(train))
        for at in range(0, len(train) - BATCH + 1, BATCH):
            batch = train[order[at : at + BATCH]]
            left, up = torch.randint(0, 5, (2,)).tolist()
            moved = F.pad(batch.images, (2, 2, 2, 2), mode="replicate")[:, :, up : up + 32, left : left + 32]
            loss = F.cross_entropy(model(moved), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = [model(part.images).argmax(1) == part.labels for part in (test[slice(0, 300)], test[slice(300, None)])]
    return float(torch.cat(right).float().mean())


def networks(fusions: Sequence[str] = FUSIONS) -> Iterator[tuple[str, nn.Module, cspprof.Profile]]:
    """Name, module and profile of the plain network and of its conversions."""
    plain = ResNet()
    for fusion in fusions:
        conversion = cspprof.convert(plain, INPUT, fusion=fusion, name="ResNet-20")
        if fusion == fusions[0]:
            yield "plain", plain, conversion.before
        yield f"CSP, fusion {fusion}", conversion.model, conversion.after


def rows() -> list[dict[str, object]]:
    """One row per network: its costs, the accuracy in percent for each seed, and their mean."""
    result = []
    for name, model, profile in networks():
        accuracies = [100 * accuracy(model, seed) for seed in SEEDS]
        print(name, accuracies)
        costs = {metric: profile.total(metric) for metric in METRICS}
        seeds = {f"accuracy_{seed}": round(a, 2) for seed, a in zip(SEEDS, accuracies, strict=True)}
        result.append({"network": name, **costs, **seeds, "accuracy": round(statistics.mean(accuracies), 2)})
    return result


def markdown(table: list[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    heads = ["network", "params", "MACs", "CIO", "peak memory", *(f"seed {s}" for s in SEEDS), "mean accuracy"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in table:
        name, params, macs, cio, peak, *accuracies = row.values()
        costs = [f"{n:,}" for n in (params, macs, cio)] + [f"{int(str(peak)) / 1024:.0f} KiB"]
        lines.append("| " + " | ".join([str(name), *costs, *(f"{a} %" for a in accuracies)]) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    table = rows()
    with (HERE / "learning.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    text = (
        f"ResNet-20 and its conversions on scikit-learn's digits, upscaled to 32×32: {1797 - TEST_IMAGES} training and "
        f"{TEST_IMAGES} test\nimages, {EPOCHS} epochs, the same schedule for all, accuracy on the test images. "
        f"torch {torch.__version__.partition('+')[0]}, scikit-learn {sklearn.__version__}.\n\n"
    )
    (HERE / "learning.md").write_text(text + markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
