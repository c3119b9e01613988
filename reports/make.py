"""Makes the picture of the README: `python reports/make.py`. Needs nothing but cspprof."""

from __future__ import annotations

from pathlib import Path

import cspprof
from cspprof.record import CONVOLUTIONS, POOLS
from cspprof.rows import Row, rows

HERE = Path(__file__).parent
PAIR = ("resnext50", "csp_resnext50")
READ, WRITE = "#4477AA", "#EE9944"  # told apart by people who do not see red and green


def counted(profile: cspprof.Profile) -> list[Row]:
    """The operations that CIO by CSPNet's rule counts."""
    return [r for r in rows(profile) if r.spec.kind in CONVOLUTIONS | POOLS]


def main() -> None:
    """Input and output elements of every convolution and pool of the pair, layer by layer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    profiles = [cspprof.profile(name) for name in PAIR]
    figure, panels = plt.subplots(2, 1, figsize=(8, 4.6), sharex=True, sharey=True, layout="constrained")
    for panel, profile in zip(panels, profiles, strict=True):
        layers = counted(profile)
        reads = [r.spec.reads[0].numel / 1e6 for r in layers]
        writes = [r.spec.writes[0].numel / 1e6 for r in layers]
        panel.bar(range(len(layers)), reads, width=0.85, color=READ, label="input")
        panel.bar(range(len(layers)), writes, width=0.85, bottom=reads, color=WRITE, label="output")
        start = 0
        top = max(r.spec.reads[0].numel + r.spec.writes[0].numel for p in profiles for r in counted(p)) / 1e6
        for i, r in enumerate(layers):
            if i == len(layers) - 1 or layers[i + 1].stage != r.stage:
                if i - start >= 3:
                    panel.text((start + i) / 2, top * 1.06, r.stage, ha="center", va="bottom", fontsize=8, color="0.35")
                if i < len(layers) - 1:
                    panel.axvline(i + 0.5, color="0.8", linewidth=0.8, zorder=0)
                start = i + 1
        total = profile.total("cio_cspnet")
        panel.set_title(f"{profile.model}: CIO {total / 1e6:.1f} M elements", loc="left", fontsize=10, pad=16)
        panel.set_ylabel("elements [M]")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, loc="upper right", fontsize=9)
    panels[1].set_xlabel("convolutions and pools in execution order (256×256 input)")
    figure.savefig(HERE / "cio_resnext50.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
