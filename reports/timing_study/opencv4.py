"""Table 5 of CSPNet in one engine: OpenCV 4, whose DNN module also reads Darknet's cfgs, as for the paper.

The networks of YOLO come from the authors' cfgs, by OpenCV's Darknet importer, with random weights; the ThunderNets
from ONNX. The output of each is compared with that of torch before it is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from cspprof.core.relative_error import relative_error
from cspprof.deployment.random_weights import calibrate
from cspprof.measure.denormals import flush_denormals
from cspprof.measure.engines.network import Prepared
from cspprof.measure.preparation import prepare
from cspprof.sources import Request, source_of
from cspprof.sources.spec import parse

TOLERANCE = 1e-4
EPSILON = 1e-6
"""Of batch norms, in OpenCV's importer."""
ROUNDS = 9
SAMPLES = 5
YOLO = {"yolov3_tiny_prn": "yolov3-tiny-prn.cfg", "yolov3_tiny": "yolov3-tiny.cfg"}
THUNDERNET = ("thundernet_snet49", "thundernet_snet146")
SIZES = {"yolov3_tiny_prn": 416, "yolov3_tiny": 416, "thundernet_snet49": 320, "thundernet_snet146": 320}

Run = Callable[[], Sequence[np.ndarray]]


def rows(cfgs: Path) -> list[list[Any]]:
    """The measured times: name, size, milliseconds of the fastest forward pass in one thread. `cfgs` is the folder of
    the authors' cfgs. Raises SystemExit if this OpenCV has no Darknet importer or an output is wrong."""
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise SystemExit(
            f"OpenCV {cv2.__version__} reads no cfg: pip install --target FOLDER 'opencv-python-headless<5'"
        )
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    flush_denormals()
    with TemporaryDirectory() as folder:
        runs = {name: _darknet(cfgs / cfg, Path(folder)) for name, cfg in YOLO.items()}
        runs |= {name: _onnx(name, Path(folder) / name) for name in THUNDERNET}
        fastest = dict.fromkeys(runs, float("inf"))
        for _ in range(ROUNDS):
            for name, run in runs.items():
                for _ in range(SAMPLES):
                    began = time.perf_counter()
                    run()
                    fastest[name] = min(fastest[name], time.perf_counter() - began)
    return [[name, SIZES[name], round(1e3 * seconds, 3)] for name, seconds in fastest.items()]


def _darknet(cfg: Path, folder: Path) -> Run:
    spec = parse(str(cfg))
    with source_of(spec).open_model(spec, Request(device="cpu")) as loaded:
        model: Any = loaded.module.eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = EPSILON
    x = torch.randn(1, 3, 416, 416, generator=torch.Generator().manual_seed(0))
    before_heads = list(_layers_before_heads(model))
    outputs: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        calibrate(model, lambda: [*model(x)])
        for name in before_heads:
            model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        model(x)
    expected = [outputs[name].numpy() for name in before_heads]
    weights = folder / f"{cfg.stem}.weights"
    weights.write_bytes(_weights(model))
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    convolutions = [f"conv_{name.partition('_')[0]}" for name in before_heads]
    return _checked(net, x.numpy(), convolutions, expected, cfg.stem, net.getUnconnectedOutLayersNames())


def _layers_before_heads(model: Any) -> Iterator[str]:
    """The names of the layers whose outputs the heads decode, each in its own way."""
    names = [name for name, _ in model.named_children()]
    for head in model.returned:
        yield names[model.inputs[head][0]]


def _weights(model: nn.Module) -> bytes:
    """A file of weights: version 0.2.5, number of images, then for each convolution the bias, or the bias, scale, mean
    and variance of its batch norm, and the weight."""
    parts = [np.array([0, 2, 5], np.int32).tobytes(), np.array([0], np.int64).tobytes()]
    for layer in model.children():
        convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)]
        for conv in convolutions:
            vectors: list[Any] = [conv.bias]
            if norms:
                vectors = [norms[0].bias, norms[0].weight, norms[0].running_mean, norms[0].running_var]
            parts += [t.detach().numpy().astype(np.float32).tobytes() for t in (*vectors, conv.weight)]
    return b"".join(parts)


def _onnx(name: str, folder: Path) -> Run:
    folder.mkdir()
    prepare(name, ["1x3x320x320"], folder, needs_graph=True)
    prepared = Prepared(folder)
    net = cv2.dnn.readNetFromONNX(str(prepared.graph))
    outputs = list(prepared.facts["export"]["outputs"])
    return _checked(net, prepared.inputs()[0], outputs, prepared.outputs(), name, outputs)


def _checked(
    net: Any, x: np.ndarray, names: list[str], expected: Sequence[np.ndarray], label: str, timed: Sequence[str]
) -> Run:
    """A function that runs the network to the layers `timed`. Raises SystemExit if an output of `names` is wrong."""
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    net.setInput(x)
    error = relative_error([net.forward(name) for name in names], expected)
    if not error <= TOLERANCE:
        raise SystemExit(f"OpenCV {cv2.__version__}, {label}: relative error {error:.1e}")

    def run() -> Sequence[np.ndarray]:
        net.setInput(x)
        found: Sequence[np.ndarray] = net.forward(timed)
        return found

    return run
