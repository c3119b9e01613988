"""Darknet cfgs: output shape, cost and arithmetic of each layer, published totals, and invalid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

import cspprof
from cspprof.core.errors import SourceError
from cspprof.metrics import METRICS
from cspprof.profiles import Profile
from cspprof.sources.darknet.activations import NAMES, activation
from cspprof.sources.darknet.cfg import read_cfg
from cspprof.sources.darknet.connections import Shortcut, resized_like
from cspprof.sources.darknet.convolution import blur, xnor_conv
from cspprof.sources.darknet.layers import LAYER_BUILDERS
from cspprof.sources.darknet.network import DarknetModel, build_network
from cspprof.sources.darknet.pooling import Pool, avg_pool, max_pool, max_pool_depth
from cspprof.sources.darknet.transforms import depth_to_space, original_reorg, response_norm, space_to_depth


@pytest.fixture
def cfg(tmp_path: Path) -> Callable[..., Path]:
    """`cfg("maxpool size=2 stride=2", …)` writes a file with these layers for a 3×8×8 image."""

    def write(*layers: str, net: str = "channels=3 height=8 width=8") -> Path:
        file = tmp_path / "net.cfg"
        file.write_text(cfg_text(f"net {net}", *layers))
        return file

    return write


def cfg_text(*sections: str) -> str:
    parts = [section.split() for section in sections]
    return "\n\n".join("\n".join([f"[{name}]", *options]) for name, *options in parts) + "\n"


def module_of(path: Path) -> DarknetModel:
    sections, _ = read_cfg(path)
    return build_network(sections[1:], (3, 8, 8))[0].eval()


def darknet_flops(profile: Profile) -> float:
    return float(profile.total("bflops_darknet")) * 1e9


# -- output shape, MACs and Darknet's FLOPs of each layer --------------------------------------------

CONV = "convolutional activation=linear"
LAYERS: dict[str, tuple[list[str], tuple[int, ...], int, float]] = {
    # name: layers for a 3×8×8 image, output shape, MACs, FLOPs by Darknet
    "conv": ([f"{CONV} filters=5 size=3 pad=1"], (5, 8, 8), 27 * 5 * 64, 2 * 27 * 5 * 64),
    "conv without pad": ([f"{CONV} filters=5 size=3"], (5, 6, 6), 27 * 5 * 36, 2 * 27 * 5 * 36),
    "conv, padding": ([f"{CONV} filters=5 size=3 padding=2"], (5, 10, 10), 27 * 5 * 100, 2 * 27 * 5 * 100),
    "conv, stride": ([f"{CONV} filters=4 size=3 stride=2 pad=1"], (4, 4, 4), 27 * 4 * 16, 2 * 27 * 4 * 16),
    "conv, stride_x": ([f"{CONV} filters=4 size=1 stride_x=2 stride_y=4"], (4, 2, 4), 3 * 4 * 8, 2 * 3 * 4 * 8),
    "conv, even size": ([f"{CONV} filters=4 size=2 pad=1"], (4, 9, 9), 12 * 4 * 81, 2 * 12 * 4 * 81),
    "conv, groups": ([f"{CONV} filters=6 size=3 pad=1 groups=3"], (6, 8, 8), 9 * 6 * 64, 2 * 9 * 6 * 64),
    "conv, dilation": ([f"{CONV} filters=4 size=3 pad=1 dilation=4"], (4, 8, 8), 27 * 4 * 64, 2 * 27 * 4 * 64),
    "conv, dilation, no pad": ([f"{CONV} filters=4 size=3 dilation=2"], (4, 6, 6), 27 * 4 * 36, 2 * 27 * 4 * 36),
    "1×1 ignores dilation": ([f"{CONV} filters=4 size=1 dilation=3 pad=1"], (4, 8, 8), 12 * 64, 24 * 64),
    "xnor": ([f"{CONV} filters=5 size=3 pad=1 xnor=1 groups=3"], (5, 8, 8), 27 * 5 * 64, 2 * 27 * 5 * 64 / 32),
    "binary": ([f"{CONV} filters=5 size=3 pad=1 binary=1"], (5, 8, 8), 27 * 5 * 64, 2 * 27 * 5 * 64),
    "antialiasing": (
        [f"{CONV} filters=4 size=3 pad=1 stride=2 antialiasing=1"],
        (4, 4, 4), 27 * 4 * 64 + 9 * 4 * 16, 2 * 27 * 4 * 64,
    ),
    "connected": (["connected output=10 activation=linear"], (10, 1, 1), 192 * 10, 0),
    "local": (["local filters=2 size=3 stride=2 pad=1 activation=linear"], (2, 4, 4), 27 * 2 * 16, 0),
    "maxpool": (["maxpool size=2 stride=2"], (3, 4, 4), 0, 4 * 3 * 16),
    "maxpool, stride 1": (["maxpool size=2 stride=1"], (3, 8, 8), 0, 4 * 3 * 64),
    "maxpool, size 5": (["maxpool size=5 stride=1"], (3, 8, 8), 0, 25 * 3 * 64),
    "maxpool, no padding": (["maxpool size=3 stride=2 padding=0"], (3, 3, 3), 0, 9 * 3 * 9),
    "maxpool, stride_x": (["maxpool size=2 stride_x=1 stride_y=2"], (3, 4, 8), 0, 4 * 3 * 32),
    "maxpool, stride 3": (["maxpool size=2 stride=3"], (3, 3, 3), 0, 4 * 3 * 9),
    "maxpool_depth": (["maxpool maxpool_depth=1 out_channels=2"], (2, 8, 8), 0, 3 * 64),
    "local_avgpool": (["local_avgpool size=3 stride=1"], (3, 8, 8), 0, 9 * 3 * 64),
    "local_avgpool, even": (["local_avgpool size=2 stride=1"], (3, 8, 8), 0, 4 * 3 * 64),
    "avgpool": (["avgpool"], (3, 1, 1), 0, 0),
    "route": (["upsample stride=1", "upsample stride=1", "route layers=-1,0"], (6, 8, 8), 0, 0),
    "route, groups": (
        [f"{CONV} filters=4 size=1", "route layers=-1 groups=2 group_id=1"], (2, 8, 8), 12 * 64, 24 * 64,
    ),
    "shortcut": (["softmax", "softmax", "shortcut from=-2 activation=linear"], (3, 8, 8), 0, 192),
    "shortcut, two maps": (["softmax", "softmax", "softmax", "shortcut from=-2,-3"], (3, 8, 8), 0, 2 * 192),
    "shortcut, weighted": (
        ["softmax", "softmax", "softmax", "shortcut from=-2,0 weights_type=per_channel"], (3, 8, 8), 0, 4 * 192,
    ),
    "shortcut, fewer channels": (
        [f"{CONV} filters=2 size=1", f"{CONV} filters=5 size=1", "shortcut from=-2"],
        (5, 8, 8), (3 * 2 + 2 * 5) * 64, 2 * (3 * 2 + 2 * 5) * 64 + 5 * 64,
    ),
    "shortcut, larger map": (
        ["softmax", "maxpool size=2 stride=2", "shortcut from=-2"], (3, 4, 4), 0, 4 * 3 * 16 + 3 * 16,
    ),
    "shortcut, smaller map": (
        ["softmax", "maxpool size=2 stride=2", "upsample stride=2", "shortcut from=-2"],
        (3, 8, 8), 0, 4 * 3 * 16 + 3 * 64,
    ),
    "upsample": (["upsample stride=2"], (3, 16, 16), 0, 0),
    "upsample, negative stride": (["upsample stride=-2"], (3, 4, 4), 0, 0),
    "reorg": ([f"{CONV} filters=4 size=1", "reorg stride=2"], (16, 4, 4), 12 * 64, 24 * 64),
    "reorg, odd channels": (["reorg stride=2"], (12, 4, 4), 0, 0),
    "reorg, reverse": ([f"{CONV} filters=4 size=1", "reorg stride=2 reverse=1"], (1, 16, 16), 12 * 64, 24 * 64),
    "reorg3d": (["reorg3d stride=4"], (48, 2, 2), 0, 0),
    "scale_channels": (["softmax", "avgpool", "scale_channels from=-2"], (3, 8, 8), 0, 0),
    "sam": (["softmax", "softmax", "sam from=-2"], (3, 8, 8), 0, 0),
    "sam, only the first source": (["softmax", "softmax", "sam from=-2,-1"], (3, 8, 8), 0, 0),
    "dropout": (["dropout probability=.5"], (3, 8, 8), 0, 0),
    "softmax": (["softmax groups=4"], (3, 8, 8), 0, 0),
    "softmax, spatial": (["softmax spatial=1"], (3, 8, 8), 0, 0),
    "cost": (["avgpool", "softmax", "cost type=sse"], (3, 1, 1), 0, 0),
    "batchnorm": (["batchnorm"], (3, 8, 8), 0, 0),
    "normalization": (["normalization size=5"], (3, 8, 8), 0, 0),
    "activation": (["activation activation=stair"], (3, 8, 8), 0, 0),
    "crop": (["crop crop_height=4 crop_width=6"], (3, 4, 6), 0, 0),
    "implicit": (["implicit filters=7"], (7, 1, 1), 0, 0),
    "yolo": ([f"{CONV} filters=21 size=1", "yolo classes=2 mask=0,1,2 num=9"], (21, 8, 8), 63 * 64, 126 * 64),
    "Gaussian_yolo": ([f"{CONV} filters=11 size=1", "Gaussian_yolo classes=2 num=1"], (11, 8, 8), 33 * 64, 66 * 64),
    "region": ([f"{CONV} filters=14 size=1", "region classes=2 num=2 coords=4"], (14, 8, 8), 42 * 64, 84 * 64),
    "detection": (
        ["connected output=24 activation=linear", "detection side=2 num=1 coords=4 classes=1"],
        (24, 1, 1), 192 * 24, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer_shape_macs_and_darknet_flops(name: str, cfg: Callable[..., Path]) -> None:
    layers, shape, macs, flops = LAYERS[name]
    path = cfg(*layers)
    p = cspprof.profile(str(path))
    p.self_check()
    assert p.complete
    assert (p.total("macs"), darknet_flops(p)) == (macs, pytest.approx(flops, rel=1e-12))
    assert tuple(module_of(path)(torch.randn(2, 3, 8, 8)).shape) == (2, *shape)


def test_every_section_type_is_tested() -> None:
    tested = {section.split()[0] for layers, *_ in LAYERS.values() for section in layers}
    aliases = {"conv", "conn", "max", "avg", "local_avg", "soft", "lrn", "contrastive", "empty", "silence"}
    assert set(LAYER_BUILDERS.names()) == tested | aliases


def test_forward_returns_the_outputs_of_all_heads(cfg: Callable[..., Path]) -> None:
    head = [f"{CONV} filters=21 size=1", "yolo classes=2 mask=0,1,2 num=9"]
    both = module_of(cfg("softmax", *head, "route layers=0", "upsample stride=2", *head))(torch.randn(1, 3, 8, 8))
    assert [tuple(y.shape) for y in both] == [(1, 21, 8, 8), (1, 21, 16, 16)]


def test_outputs_are_freed_after_their_last_reader(cfg: Callable[..., Path]) -> None:
    deep = cspprof.profile(str(cfg(*[f"{CONV} filters=8 size=1"] * 30)))
    assert deep.total("peak_bytes") == 2 * 8 * 64 * 4


# -- the arithmetic ----------------------------------------------------------------------------------


def windows(x: torch.Tensor, size: int, stride: int, padding: int) -> list[list[torch.Tensor]]:
    """The windows of Darknet's loop over a square map: they start at −⌊padding/2⌋ and are cut at the border."""

    def span(i: int) -> slice:
        start = i * stride - padding // 2
        return slice(max(start, 0), start + size)

    n = (x.shape[-1] + padding - size) // stride + 1
    return [[x[:, :, span(i), span(j)] for j in range(n)] for i in range(n)]


@settings(deadline=None)  # the first call of a custom operation is slow
@given(
    side=st.integers(4, 9), size=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 3),
    average=st.booleans(),
)  # fmt: skip
def test_pooling_with_any_padding(side: int, size: int, stride: int, padding: int, average: bool) -> None:
    padding = min(padding, size - 1)
    x = torch.randn(1, 2, side, side, dtype=torch.float64)
    rows = [
        torch.stack([w.mean((2, 3)) if average else w.amax((2, 3)) for w in row], 2)
        for row in windows(x, size, stride, padding)
    ]
    torch.testing.assert_close(Pool(average, size, (stride, stride), padding)(x), torch.stack(rows, 2))


def test_max_pool_depth_pools_congruent_channels() -> None:
    x = torch.randn(1, 7, 2, 2)
    got = max_pool_depth(x, 3, 1)
    for g in range(3):
        assert torch.equal(got[:, g], x[:, g::3].amax(1))


def test_reorg_matches_darknets_loop() -> None:
    c, h, w, s = 8, 4, 6, 2
    x = torch.arange(float(c * h * w)).view(1, c, h, w)
    flat, out = x.flatten(), torch.empty(c * h * w)
    part = c // (s * s)
    for k in range(c):
        for j in range(h):
            for i in range(w):
                offset, channel = k // part, k % part
                source = i * s + offset % s + w * s * (j * s + offset // s + h * s * channel)
                out[i + w * (j + h * k)] = flat[source]
    assert torch.equal(original_reorg(x, s).flatten(), out)
    assert torch.equal(depth_to_space(space_to_depth(x, s), s), x)


def test_shortcut_of_maps_with_unequal_shapes() -> None:
    y = torch.zeros(1, 2, 4, 4)
    large, small = torch.randn(1, 3, 8, 8), torch.randn(1, 1, 2, 2)
    assert torch.equal(resized_like(large, y), large[:, :2, ::2, ::2])
    assert torch.equal(resized_like(small, y)[:, 0, ::2, ::2], small[:, 0])
    assert resized_like(small, y).count_nonzero() == 4
    weighted = Shortcut(2, 2, "per_feature", "softmax", None)
    with torch.no_grad():
        torch.testing.assert_close(weighted(y + 1, y + 3), y + 2)  # equal weights give the mean


def test_xnor_conv_is_a_convolution_of_signs() -> None:
    x, w = torch.randn(1, 4, 5, 5), torch.randn(2, 4, 3, 3)
    mean = w.abs().mean((1, 2, 3))
    signs = torch.nn.functional.conv2d(x.sign(), w.sign(), padding=0) * mean[:, None, None]
    torch.testing.assert_close(xnor_conv(x, w, [1, 1], 0, 1), signs)


def test_gradients_of_custom_operations() -> None:
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    for call in (
        lambda x: max_pool(x, 2, [1, 1], 1),
        lambda x: avg_pool(x, 2, [1, 1], 1),
        lambda x: max_pool_depth(x, 2, 1),
        lambda x: blur(x, 3, [2, 2]),
        lambda x: response_norm(x, 5, 1e-2, 0.75, 1.0),
    ):
        assert gradcheck(call, (x,))


ACTIVATIONS = {  # the values at −5, −0.5, 0.5 and 5
    "linear": (-5, -0.5, 0.5, 5),
    "relu": (0, 0, 0.5, 5),
    "relu6": (0, 0, 0.5, 5),
    "leaky": (-0.5, -0.05, 0.5, 5),
    "revleaky": (-0.5, -0.05, 0.5, 5),
    "relie": (-0.05, -0.005, 0.5, 5),
    "ramp": (-0.5, -0.05, 0.55, 5.5),
    "hardtan": (-1, -0.5, 0.5, 1),
    "lhtan": (-0.005, -0.0005, 0.5, 1.004),
    "plse": (-0.01, 0.4375, 0.5625, 1.01),
    "stair": (-3.0, -0.5, 0.0, 2.0),
    "hard_mish": (0, -0.375, 0.5, 5),
    "logistic": (0.006693, 0.377541, 0.622459, 0.993307),
    "loggy": (-0.986614, -0.244919, 0.244919, 0.986614),
    "tanh": (-0.999909, -0.462117, 0.462117, 0.999909),
    "elu": (-0.993262, -0.393469, 0.5, 5),
    "selu": (-1.746263, -0.691758, 0.525350, 5.253505),
    "gelu": (0, -0.154286, 0.345714, 5),
    "swish": (-0.033464, -0.188770, 0.311230, 4.966536),
    "mish": (-0.033576, -0.220736, 0.375245, 4.999552),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_activation_values(name: str) -> None:
    act = activation(name) or torch.nn.Identity()
    if name.startswith("normalize_channels"):
        y = act(torch.randn(1, 5, 3, 3).abs())
        torch.testing.assert_close(y.sum(1), torch.ones(1, 3, 3), atol=1e-3, rtol=0)
    else:
        got = act(torch.tensor([-5.0, -0.5, 0.5, 5.0]))
        torch.testing.assert_close(got, torch.tensor(ACTIVATIONS[name], dtype=torch.float32), atol=2e-4, rtol=1e-5)


# -- whole networks ----------------------------------------------------------------------------------


def test_published_cfgs_match_the_reference_layer_by_layer(reference: Path, darknet_totals: dict[str, Any]) -> None:
    assert len(darknet_totals) == 28
    for file, expected in darknet_totals.items():
        p = cspprof.profile(str(reference / "cfg" / file))
        assert (p.complete, p.notes) == (True, ()), file
        totals = {name: p.total(name) for name in ("macs", "cio_hardnet", "cio_cspnet")}
        assert totals == {name: expected[name] for name in totals}, file
        assert p.total("conv_weights") == expected["weights"], file
        assert round(p.total("bflops_darknet"), 6) == expected["bflops_darknet"], file
        rows = [[0, 0] for _ in expected["layers"]]
        for op in p.ops:
            row = rows[int(op.layer.partition("_")[0])]
            row[0] += op.macs or 0
            row[1] += METRICS.get("cio_cspnet").op_value(op.spec).value  # type: ignore[union-attr, operator]
        assert rows == [layer[4:6] for layer in expected["layers"]], file


def conv(filters: int, size: int = 3, stride: int = 1) -> str:
    return f"convolutional batch_normalize=1 filters={filters} size={size} stride={stride} pad=1 activation=leaky"


def head(layer: int) -> list[str]:
    return [f"{CONV} filters=255 size=1", f"yolo mask=0,1,2 classes=80 num=9 anchors={layer}"]


def yolov4_tiny() -> list[str]:
    """Three cross-stage-partial blocks, each with two convolutions of half the channels."""
    layers = [conv(32, 3, 2), conv(64, 3, 2)]
    for c in (64, 128, 256):
        layers += [conv(c), "route layers=-1 groups=2 group_id=1", conv(c // 2), conv(c // 2), "route layers=-1,-2"]
        layers += [conv(c, 1), "route layers=-6,-1", "maxpool size=2 stride=2"]
    layers += [conv(512), conv(256, 1), conv(512), *head(1)]
    return [*layers, "route layers=-4", conv(128, 1), "upsample stride=2", "route layers=-1,23", conv(256), *head(2)]


def yolov3() -> list[str]:
    """Darknet-53, then three levels of six convolutions and a head."""
    layers = [conv(32)]
    for i, depth in enumerate((1, 2, 8, 8, 4)):
        c = 64 << i
        layers += [conv(c, 3, 2), *[conv(c // 2, 1), conv(c), "shortcut from=-3 activation=linear"] * depth]
    for level, source in enumerate(("", "route layers=-1,61", "route layers=-1,36")):
        c = 512 >> level
        if source:
            layers += ["route layers=-4", conv(c, 1), "upsample stride=2", source]
        layers += [conv(c, 1), conv(2 * c)] * 3 + head(level)
    return layers


@pytest.mark.parametrize(("layers", "printed"), [(yolov4_tiny(), 6.910), (yolov3(), 65.879)])
def test_bflops_that_darknet_prints(layers: list[str], printed: float, cfg: Callable[..., Path]) -> None:
    p = cspprof.profile(str(cfg(*layers, net="width=416 height=416 channels=3")))
    assert round(p.total("bflops_darknet"), 3) == printed


def yolov3_voc() -> list[str]:
    """The network of yolov3 for twenty classes: 75 channels before each head."""
    return [s.replace("filters=255", "filters=75").replace("classes=80", "classes=20") for s in yolov3()]


def test_tables_round_bflops_as_darknet_does_and_json_is_exact(
    cfg: Callable[..., Path], run: Callable[..., Result]
) -> None:
    """Darknet adds in single precision: it prints 65.442 for 65.4425108."""
    path = str(cfg(*yolov3_voc(), net="width=416 height=416 channels=3"))
    table = {line.split("  ")[0]: line.split()[-1] for line in run("flops", path).out.splitlines() if line}
    assert table["BFLOPs (Darknet)"] == "65.442"
    exact = json.loads(run("flops", path, "--format", "json").out)["models"][0]["bflops_darknet"]
    assert exact == pytest.approx(65.442510848, rel=1e-15)
    assert run("flops", path, "--convention", "darknet").out.count("65.442") == 1
    two = run("flops", path, "--input", "2x3x416x416")  # Darknet counts one image only
    assert f"{2 * exact:.3f}" in two.out


def test_share_index_shares_weights(cfg: Callable[..., Path]) -> None:
    first = f"{CONV} batch_normalize=1 filters=3 size=3 pad=1"
    p = cspprof.profile(str(cfg(first, f"{first} dilation=2 share_index=-1", f"{first} share_index=0")))
    assert p.params == 81 + 6
    assert p.total("macs") == 3 * 81 * 64


def test_network_is_built_for_the_requested_input(cfg: Callable[..., Path], run: Callable[..., Result]) -> None:
    path = str(cfg("connected output=2 activation=linear"))
    assert cspprof.profile(path, (1, 3, 4, 4)).total("macs") == 48 * 2
    assert run("flops", path, "--input", "2x1x8x8").out.count("256")
    vector = str(cfg("connected output=2 activation=linear", net="inputs=100"))
    assert cspprof.profile(vector).total("macs") == 200


# -- invalid files -----------------------------------------------------------------------------------

INVALID = {
    "cycle": (["softmax", "route layers=1"], "net.cfg, line 9: layer 1, [route] layers=1: layer 1 is not an earlier"),
    "before the first layer": (["softmax", "route layers=-3"], "layer -2 comes before the first layer"),
    "route in the first layer": (["route layers=-1"], "This is the first layer"),
    "far before the first layer": (["softmax", "shortcut from=-1000000"], "The earlier layers are 0 to 0"),
    "stride": ([f"{CONV} filters=2 stride=0"], "[convolutional] stride=0 is too small"),
    "pool stride": (["maxpool size=2 stride=0"], "[maxpool] stride=0 is too small"),
    "upsample stride": (["upsample stride=0"], "[upsample] stride=0"),
    "missing layers": (["softmax", "route"], "net.cfg, line 8: [route] has no layers"),
    "missing from": (["softmax", "shortcut activation=linear"], "[shortcut] has no from"),
    "not an integer": ([f"{CONV} filters=many"], "net.cfg, line 8: [convolutional] filters='many' is not an integer"),
    "too large": ([f"{CONV} filters=99999999999"], "does not fit a C int"),
    "small map": ([f"{CONV} filters=2 size=9"], "a window of 9×9 does not fit a map of 3×8×8"),
    "groups": ([f"{CONV} filters=2 groups=2"], "the map before it has 3 channels, which 2 groups do not divide"),
    "unknown layer": (["softmax", "warp x=1", "softmax", "bend"], "does not know: [warp] in line 8, [bend] in line 13"),
    "route sizes": (["softmax", "avgpool", "route layers=1,0"], "different sizes: layer 1 3×1×1, layer 0 3×8×8"),
    "yolo channels": ([f"{CONV} filters=20", "yolo classes=2 mask=0,1,2"], "[yolo] needs 3·7 = 21 channels"),
    "detection values": (["detection side=2 num=1 coords=4 classes=1"], "needs 24 values"),
    "weights_type": (["softmax", "softmax", "shortcut from=-2 weights_type=odd"], "weights_type=odd is unknown"),
    "share_index": (["softmax", f"{CONV} filters=2 share_index=0"], "layer 0 has no weights of shape 2×3×1×1"),
    "long route": (["softmax", "route layers=" + ",".join(["0"] * 1_000_000)], "layers lists 1,000,000 numbers"),
    "scale": (["softmax", f"{CONV} filters=2 size=1", "scale_channels from=-2"], "cannot scale layer 0 3×8×8 by 2×8×8"),
    "crop": (["crop crop_height=99 crop_width=1"], "cannot cut 99×1 out of 3×8×8"),
    "temperature": (["softmax temperature=0"], "net.cfg, line 7: [softmax] temperature=0 divides by zero"),
    "trailing comma": (["softmax", "softmax", "route layers=-1,"], "[route] layers=-1, has a comma without a number"),
    "recurrent": (["softmax", "crnn output=4 hidden=4"], "does not know: [crnn] in line 8 Recurrent layers are not"),
    "reorg": (["reorg3d stride=3"], "stride 3 does not divide a map of 3×8×8"),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_invalid_layer_error_names_the_line(name: str, cfg: Callable[..., Path], run: Callable[..., Result]) -> None:
    layers, message = INVALID[name]
    result = run("cio", str(cfg(*layers)))
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "net.cfg has no sections"),
        (b"width=3\n", "line 1: 'width=3' stands before the first section"),
        (b"[net]\nwidth=8\nheight=8\nchannels=3\n", "there is no layer after [net]"),
        (b"[convolutional]\nfilters=3\n", "line 1: the first section is [convolutional]"),
        (b"[net]\nwidth=8\n[avgpool]\n", "[net] has no channels and no height"),
        (b"[net\nwidth=8\n", "line 1: '[net' is not a section header"),
        (b"\x80\x02}q\x00.", "line 1 is not text"),
        (b"[net]\nwidth=\xff\xfe\n", "line 2 is not text"),
    ],
)
def test_file_that_is_not_a_cfg(data: bytes, message: str, tmp_path: Path, run: Callable[..., Result]) -> None:
    file = tmp_path / "net.cfg"
    file.write_bytes(data)
    result = run("cio", str(file))
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.split())


def test_missing_file_options_and_wrong_input_are_refused(tmp_path: Path, cfg: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*none.cfg"):
        cspprof.profile(str(tmp_path / "none.cfg"))
    with pytest.raises(SourceError, match="takes no options"):
        cspprof.profile(f"{cfg('avgpool')},width=3")
    with pytest.raises(SourceError, match="takes one image"):
        cspprof.profile(str(cfg("avgpool")), (1, 3, 8))


def test_cfg_syntax_is_read_as_darknet_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "net.cfg"
    file.write_bytes(
        "\ufeff# Kommentar: größer\r\n[net] # first\r\n wi dth = 8\r\nheight=8 ; eight\r\nheight=9\r\nchannels=3\r\n"
        "[convolutional]\r\nfilters=2.0\r\nactivation=odd\r\nstray words\r\n".encode()
    )
    p = cspprof.profile(str(file))
    assert p.inputs[0].shape == (1, 3, 8, 8)
    assert p.source == "net.cfg"
    assert p.notes == (
        "line 10 of net.cfg has no '=' and is skipped, as in Darknet",
        "line 9: the activation 'odd' is unknown, so relu is used, as in Darknet",
    )
