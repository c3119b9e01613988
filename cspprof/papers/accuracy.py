"""Published ImageNet accuracies of networks in the zoo."""

from __future__ import annotations

from dataclasses import dataclass

from cspprof.core.record import Record

TABLE = "Wang et al. 2019, Table 3"
FIGURE = "Wang et al. 2019, Fig. 4"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracies in percent, as printed."""

    top1: float
    top5: float | None
    """None if the paper does not print it."""
    source: str = TABLE
    cost_change: int | None = None
    """The printed change of BFLOPs from the plain network, in percent."""


PUBLISHED: dict[tuple[str, int], Accuracy] = {
    ("resnext50", 256): Accuracy(77.8, 94.2),
    ("csp_resnext50", 256): Accuracy(77.9, 94.0),
    ("resnet50", 256): Accuracy(75.8, 92.9),
    ("csp_resnet50", 256): Accuracy(76.6, 93.3),
    ("darknet53", 256): Accuracy(77.2, 93.8),
    ("csp_darknet53", 256): Accuracy(77.2, 93.6),
    ("peleenet", 224): Accuracy(70.7, 90.0),
    ("sparse_peleenet", 224): Accuracy(69.6, 89.3),
    ("mobilenet_v2_darknet", 224): Accuracy(67.0, 87.7),
    ("csp_mobilenet_v2", 224): Accuracy(67.7, 88.3),
    ("efficientnet_b0_darknet", 224): Accuracy(71.3, 90.4),
    ("resnet10", 256): Accuracy(63.5, 85.0),
    ("darknet_ref", 256): Accuracy(61.1, 83.0),
    ("csp_peleenet", 224): Accuracy(70.9, 90.2, FIGURE, -13),
    ("csp_peleenet,gamma=0.25", 224): Accuracy(71.5, None, FIGURE, -3),
    ("csp_peleenet,fusion=last", 224): Accuracy(70.6, None, FIGURE, -21),
    ("csp_peleenet,fusion=last,gamma=0.25", 224): Accuracy(70.8, None, FIGURE, -11),
    ("csp_peleenet,fusion=first", 224): Accuracy(69.2, None, FIGURE, -26),
    ("csp_peleenet,fusion=none", 224): Accuracy(70.7, 90.0, FIGURE, 0),
}
"""By SPEC, and height and width of the input."""
ACCURACIES = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}
"""Names of accuracies where a metric is expected, and their titles."""
DEFAULTS = {"gamma=0.5", "fusion=csp"}
"""Options of the cross-stage-partial networks that are the default."""


def published_accuracy(record: Record) -> Accuracy | None:
    """The published accuracy of this network with these options at this resolution; None if there is none."""
    if len(record.inputs) != 1 or len(record.inputs[0].shape) != 4:
        return None
    height, width = record.inputs[0].shape[2:]
    name, *options = record.source.split(",")
    spec = ",".join([name, *sorted(set(options) - DEFAULTS)])
    return PUBLISHED.get((spec, height)) if height == width else None
