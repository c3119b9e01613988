"""The networks of the study: plain/CSP pairs of the zoo, popular CNNs of timm, and converted networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import nn

import cspprof
from cspprof.zoo import catalog

CLASSIFIER_SIZES = (160, 256)
DETECTOR_SIZES = (320, 416)
"""Height and width of the input."""


class Network(NamedTuple):
    """A network of the study."""

    name: str
    spec: str
    family: str
    """Predictions leave a family out together."""
    plain: str = ""
    """The name of the plain network of which this one is the CSP form; empty if it is none."""
    detector: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        return DETECTOR_SIZES if self.detector else CLASSIFIER_SIZES

    @property
    def source(self) -> str:
        """`timm`, `converted` or `zoo`."""
        if self.name.startswith("timm:"):
            return "timm"
        return "converted" if self.name.startswith("converted") else "zoo"


OTHERS_OF_ZOO = (
    "resnet18", "darknet_ref", "mobilenet_v2", "efficientnet_b0_darknet", "res2netlite72", "hardnet39ds", "hardnet68ds",
    "hardnet68", "vgg16", "squeezenet", "sparse_peleenet",
)  # fmt: skip
"""Networks without a CSP form."""
DETECTORS = {
    "yolov3_tiny": "", "yolov3_tiny_prn": "", "peleenet_yolo": "", "peleenet_prn": "", "peleenet_prn3": "",
    "csp_peleenet_efm": "peleenet_prn3", "csp_peleenet_gfm": "peleenet_prn3", "thundernet_snet49": "",
    "thundernet_snet146": "",
}  # fmt: skip
"""Detectors of the zoo. EFM and GFM have a CSP backbone and another neck than the plain network beside them."""
SAME_DEPTH = {"csp_resnet50": "resnet50", "csp_resnext50": "resnext50"}
"""The authors' CSP forms have fewer blocks than the plain networks; these forms have as many."""
TIMM = {
    "resnet50": "resnet", "cspresnet50": "resnet", "seresnet50": "resnet", "resnext50_32x4d": "resnext",
    "cspresnext50": "resnext", "darknet53": "darknet", "cspdarknet53": "darknet", "res2net50_26w_4s": "res2net",
    "vgg11_bn": "vgg", "inception_v3": "inception", "xception41": "xception", "mobilenetv1_100": "mobilenet",
    "mobilenetv3_large_100": "mobilenet", "mnasnet_100": "mobilenet", "efficientnet_b0": "efficientnet",
    "tf_efficientnetv2_b0": "efficientnet", "regnetx_032": "regnet", "regnety_032": "regnet",
    "convnext_atto": "convnext", "convnext_tiny": "convnext", "repvgg_a0": "vgg", "ghostnet_100": "ghostnet",
    "dla34": "dla", "hrnet_w18_small": "hrnet", "dpn68": "dpn", "ese_vovnet39b": "vovnet", "mixnet_s": "mixnet",
    "starnet_s1": "starnet", "resnet18": "resnet",
}  # fmt: skip
"""Popular CNNs of timm, with their families."""
TIMM_PAIRS = {"cspresnet50": "resnet50", "cspresnext50": "resnext50_32x4d", "cspdarknet53": "darknet53"}
CONVERTED = ("resnet18", "efficientnet_b0", "dla34", "repvgg_a0", "convnext_atto", "mobilenetv1_100", "regnety_032")
"""Networks of timm that `cspprof convert` converts."""


def converted(of: str, device: str | None = "cpu") -> nn.Module:
    """The cross stage partial form of a network of timm, by the defaults of `cspprof convert`.

    If `device` is None, it has no weights.
    """
    return cspprof.convert(f"timm:{of}", device=device).model


def networks() -> list[Network]:
    """All networks of the study. A CSP form follows its plain network."""
    zoo = catalog()
    found: list[Network] = []
    for name in zoo:
        twin = zoo.get(name).twin
        if twin:
            family = zoo.get(name).family
            if not any(n.name == twin for n in found):
                found.append(Network(twin, twin, family))
            found.append(Network(name, name, family, twin))
            if name in SAME_DEPTH:
                spec = f"{name},depths=(3,4,6,3)"
                found.append(Network(spec, spec, family, twin))
    found += [Network(name, name, zoo.get(name).family) for name in OTHERS_OF_ZOO]
    found += [Network(name, name, zoo.get(name).family, plain, detector=True) for name, plain in DETECTORS.items()]
    for name, family in TIMM.items():
        plain = f"timm:{TIMM_PAIRS[name]}" if name in TIMM_PAIRS else ""
        found.append(Network(f"timm:{name}", f"timm:{name}", family, plain))
        if name in CONVERTED:
            spec = f"{Path(__file__)}:converted,of={name}"
            found.append(Network(f"converted timm:{name}", spec, family, f"timm:{name}"))
    return found


def by_name() -> dict[str, Network]:
    return {network.name: network for network in networks()}


def groups(chosen: list[Network]) -> Iterator[list[Network]]:
    """The networks that are measured together: each with the CSP forms of it."""
    for network in chosen:
        if not any(network.plain == other.name for other in chosen):
            yield [network, *(other for other in chosen if other.plain == network.name)]
