"""Write `conversion.md`: what `cspprof convert` does with a network of each family of the zoo, torchvision and timm."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import timm
import torch
import torchvision

import cspprof
from cspprof.core import units
from cspprof.results import Conversion
from cspprof.zoo import catalog

PAGE = Path(__file__).parent / "conversion.md"
HEAD = """# Which networks convert

What `cspprof convert` does with one network of each family of the zoo, torchvision and timm, with its defaults:
γ = 0.5, fusion *csp*, sliced channels. A network is left if no stage of it converts; the reason is that of its first
stage. Changes are those of the whole network. `python docs/conversion.py` generates this page, here with timm {timm}
and torchvision {torchvision}.

Of {networks} networks, {converted} convert. {transformers} have most of their MACs in attention or linear layers. Of
the other {others}, {share} convert.

| network | stages | params | MACs | CIO | left because |
| --- | --: | --: | --: | --: | --- |
"""
LARGE = re.compile(r"large|huge|giant|xl|_l\b|_h\b|_g\b|384|448|512")
SMALL = re.compile(r"tiny|nano|small|atto|pico|femto|18|26")


def networks() -> list[str]:
    """A small network of each family: plain networks of the zoo, classifiers and segmentation networks of torchvision,
    and timm's architectures by module and name."""
    families: dict[object, list[str]] = {}
    for _, entry in catalog().items():
        if not entry.name.startswith("csp_"):
            families.setdefault(("zoo", entry.family), []).append(entry.name)
    for module in (torchvision.models, torchvision.models.segmentation):
        for name in torchvision.models.list_models(module):
            families.setdefault(("torchvision", _family(name)), []).append(f"torchvision:{name}")
    for name in timm.list_models(exclude_filters="test_*"):
        of_module = timm.models._registry._model_to_module[name]
        families.setdefault((of_module, _family(name, "(?:v2|v3|x)?")), []).append(f"timm:{name}")
    return [
        min(names, key=lambda n: (len(LARGE.findall(n)), not SMALL.search(n), len(n), n)) for names in families.values()
    ]


def _family(name: str, version: str = "") -> str:
    found = re.match(f"[a-z]+{version}", name)
    return found[0] if found else name


def row(spec: str) -> tuple[list[str], bool, bool]:
    """The cells of a network, whether it converts, and whether it is mostly attention and linear layers."""
    conversion = cspprof.convert(spec)
    share = conversion.before.total("conv_share") or 0
    if not conversion.converted:
        return [spec, "–", "", "", "", _reason(conversion)], False, share < 0.5
    changes = [_change(conversion, metric) for metric in ("params", "macs", "cio_cspnet")]
    return [spec, str(len(conversion.converted)), *changes, ""], True, share < 0.5


def _reason(conversion: Conversion) -> str:
    return conversion.stages[0].reason.replace("|", "/")


def _change(conversion: Conversion, metric: str) -> str:
    before, after = conversion.before.total(metric), conversion.after.total(metric)
    return units.change((after - before) / before if before else None)


def page() -> str:
    rows = [row(spec) for spec in networks()]
    lines = ["| " + " | ".join(cells) + " |" for cells, _, _ in rows]
    transformers = sum(linear for _, _, linear in rows)
    others = [converted for _, converted, linear in rows if not linear]
    head = HEAD.format(
        timm=timm.__version__, torchvision=torchvision.__version__.partition("+")[0], networks=len(rows),
        converted=sum(converted for _, converted, _ in rows), transformers=transformers, others=len(others),
        share=f"{sum(others) / len(others):.0%}",
    )  # fmt: skip
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
