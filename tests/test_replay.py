"""A record replayed on another input is what a trace on it gives, in every byte; or it is refused, never guessed."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
import subprocess
import sys
from collections.abc import Callable
from math import isqrt, prod, trunc
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import cspprof
from cspprof import formulas as f
from cspprof.errors import ReplayError, TraceError
from cspprof.record import Kind, Profile
from cspprof.replay import replay
from cspprof.replay.numbers import Numbers
from cspprof.replay.sizes import Size, Sizes
from cspprof.replay.views import settled
from cspprof.rules import RULES, Facts
from cspprof.saving import from_bytes, to_bytes
from cspprof.sources.weightless import weightless
from cspprof.trace import memo, trace
from cspprof.zoo import catalog

SIZES = (224, 225, 237, 255, 256, 288, 301, 320, 333, 416)
REPLAYED = ("csp_resnext50", "csp_peleenet_gfm", "yolov3_tiny_prn", "thundernet_snet49", "res2netlite72")
"""Of the zoo, for quick runs: between them they slice, split, pad, resize, shuffle and group."""


def recorded(module: nn.Module, *shape: int) -> Profile:
    """The profile as a file gives it back."""
    return from_bytes(to_bytes(trace(module, shape), compressed=False), "a test's")


def assert_replayed(module: nn.Module, profile: Profile, shape: tuple[int, ...], dtype: str | None = None) -> None:
    fresh = trace(module, shape, name=profile.model, source=profile.source, dtype=dtype)
    fresh.self_check()
    made = replay(profile, shape, dtype=dtype)
    assert to_bytes(made, False) == to_bytes(fresh, False)
    assert made.live_bytes == fresh.live_bytes


def zoo(name: str) -> tuple[nn.Module, Profile, tuple[int, ...]]:
    entry = catalog().get(name)
    with weightless():
        module = entry.factory()
    return module, recorded(module, *entry.input), entry.input


@pytest.mark.parametrize("name", REPLAYED)
def test_a_network_at_other_sizes_batches_and_dtypes(name: str) -> None:
    module, profile, native = zoo(name)
    for shape in ((1, 3, 301, 301), (2, 3, 333, 256)):
        assert_replayed(module, profile, shape)
    assert_replayed(module, profile, native, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalog().names()))
def test_every_network_of_the_zoo_at_ten_sizes(name: str) -> None:
    module, profile, native = zoo(name)
    for size in SIZES:
        assert_replayed(module, profile, (1, 3, size, size))
    for shape in ((1, 3, 256, 320), (2, 3, 416, 225), (5, *native[1:])):
        assert_replayed(module, profile, shape)
    for dtype in ("float16", "bfloat16", "float64"):
        assert_replayed(module, profile, (2, *native[1:]), dtype)


def test_a_replayed_profile_can_be_replayed() -> None:
    _, profile, native = zoo("csp_peleenet_gfm")
    there = profile.at((2, 3, 301, 288), dtype="float16")
    assert there.inputs[0].shape == (2, 3, 301, 288)
    assert there != profile
    assert there.at(native, dtype="float32") == profile == profile.at()
    assert to_bytes(there.at(batch=1), False) == to_bytes(profile.at((1, 3, 301, 288), dtype="float16"), False)


def test_a_profile_that_was_replayed_is_copied_and_pickled() -> None:
    _, profile, _ = zoo("yolov3_tiny_prn")
    there = profile.at(batch=2)
    for made in (copy.copy(profile), copy.deepcopy(profile), pickle.loads(pickle.dumps(profile))):
        assert made == profile
        assert made.at(batch=2) == there == pickle.loads(pickle.dumps(there))


# -- operations one by one ----------------------------------------------------------------------------


class Doing(nn.Module):
    """A forward of one line between two convolutions."""

    def __init__(self, line: Callable[[Tensor], Any], c: int = 4, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.line, self.after = nn.Conv2d(3, c, 1), line, after

    def forward(self, x: Tensor) -> Any:
        y = self.line(self.before(x))
        return y if self.after is None else self.after(y)


def held_together(line: Callable[[Tensor], Any], first: tuple[int, ...], *others: tuple[int, ...]) -> None:
    """Replayed as traced; refused exactly where torch refuses."""
    module = Doing(line)
    try:
        profile = recorded(module, *first)
    except TraceError:
        return
    for other in others:
        try:
            fresh = trace(module, other)
        except TraceError:
            with pytest.raises(ReplayError):
                replay(profile, other)
            continue
        if not (empty(profile) or empty(fresh)):  # which is refused
            assert to_bytes(replay(profile, other), False) == to_bytes(fresh, False)


def empty(profile: Profile) -> bool:
    return any(0 in t.shape for s in profile.specs for t in s.writes)


images = st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 14), st.integers(1, 14))
windows = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))


@settings(deadline=None, max_examples=150)
@given(images, images, images, windows, st.booleans())
def test_convolutions(first: Any, second: Any, third: Any, window: Any, transposed: bool) -> None:
    k, s, p, d = window
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, k, s, p, dilation=d, groups=2)
    held_together(layer, first, second, third)


@settings(deadline=None, max_examples=150)
@given(images, images, images, windows, st.sampled_from(["max", "avg"]), st.booleans())
def test_pools(first: Any, second: Any, third: Any, window: Any, kind: str, ceil: bool) -> None:
    k, s, p, d = window
    pool = nn.MaxPool2d(k, s, p, d, ceil_mode=ceil) if kind == "max" else nn.AvgPool2d(k, s, p, ceil_mode=ceil)
    held_together(pool, first, second, third)


SLICES: list[Callable[[Tensor], Any]] = [
    lambda x: x[:, :, ::2, 1::3] + 1,
    lambda x: x[:, 1:3, :-2] * 2,
    lambda x: x[:, ::2].flatten(1),
    lambda x: x[:, :, 0].relu(),
    lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    lambda x: x.split([1, x.size(1) - 1], 1)[1].contiguous().relu(),
    lambda x: x.split(3, 1)[0].permute(0, 2, 3, 1).sigmoid(),
    lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).contiguous().flatten(1, 2).relu(),
    lambda x: x.mean((2, 3), keepdim=True).sigmoid() * x,
    lambda x: x.mean((2, 3)).unsqueeze(2).expand(-1, -1, 7),
    lambda x: x.amax(1, keepdim=True) + x.amin(1, keepdim=True),
    lambda x: F.pad(x, (1, 2, 0, -1)).relu(),
    lambda x: F.pad(x, (2, 2, 1, 1), mode="reflect"),
    lambda x: F.interpolate(x, scale_factor=1.5),
    lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    lambda x: F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), size=x.shape[2:]) + x,
    lambda x: F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), size=(x.size(2), x.size(3))) + x,
    lambda x: F.interpolate(x, size=(9, 5)).relu_(),
    lambda x: F.pixel_shuffle(x, 2),
    lambda x: F.pixel_unshuffle(x, 2).relu(),
    lambda x: F.adaptive_avg_pool2d(x, (3, 2)).flatten(1),
    lambda x: F.adaptive_avg_pool2d(x, 1).relu_().squeeze(-1).squeeze(-1),
    lambda x: torch.stack([x, x.relu()], 1).sum(1),
    lambda x: F.softmax(x, 1).clone().add_(x),
    lambda x: x.permute(0, 2, 3, 1).reshape(-1, 2),
    lambda x: F.avg_pool2d(x.permute(0, 2, 3, 1), 1)[:, 1:].permute(0, 3, 1, 2).relu(),
]


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(images, st.lists(images, min_size=2, max_size=4), st.sampled_from(SLICES))
def test_views_resizes_and_what_reads_them(first: Any, others: Any, line: Callable[[Tensor], Any]) -> None:
    module = Doing(line)
    try:
        profile = recorded(module, *first)
    except TraceError:
        return
    for other in others:
        try:
            made = replay(profile, other)
        except ReplayError:
            continue  # odd sizes, or a copy where a view was: what is refused is below
        fresh = trace(module, other)
        assert to_bytes(made, False) == to_bytes(fresh, False)


@pytest.mark.parametrize("line", SLICES)
def test_common_sizes_are_never_refused(line: Callable[[Tensor], Any]) -> None:
    module = Doing(line, 8)
    profile = recorded(module, 1, 3, 12, 10)
    for shape in ((1, 3, 14, 16), (1, 3, 16, 10)):
        assert_replayed(module, profile, shape)
    assert_replayed(module, profile, (1, 3, 12, 10), "float16")


# -- sizes that remember ------------------------------------------------------------------------------

ARITHMETIC: list[Callable[[Any, Any], Any]] = [
    lambda h, w: ((h + 3) // 2 * w - 5 * h, -h * w // (2 * h), (2 * h * w) // (h + 1)),
    lambda h, w: [f.window_size(n, 3, 2, 1, 2, ceil) for n in (h, w) for ceil in (False, True)],
    lambda h, w: [f.slice_length(h, *ends) for ends in ((1, -1, 2), (-3, None, 1), (0, 5, 1), (4, 2, 3))],
    lambda h, w: f.broadcast((h, 1, w), (w,), (h, 2, 1)) if h > 2 else (max(h, w) % 4, -(-h // 3)),
    lambda h, w: f.elementwise_strides((2, h, w), [((2, h, w), (h * w, 1, h)), ((h, 1), (1, 1))]),
    lambda h, w: settled((h, -1, 2), 2 * h * h * w),
    lambda h, w: (trunc(h * 1.7), trunc(w * 2.0), 7 // h, 7 % w, *divmod(h * w + 1, w), (3 * h + 7) % 3),
    lambda h, w: (f.adaptive_windows(h, 3) * prod((h, w, 5)),) if h != w else (sum((h, w)),),
    lambda h, w: [*[h] * (w // h), *["even" if h % 2 == 0 else "odd"] * bool(w - 3)],
    lambda h, w: (isqrt(h), f"{h:,}×{w}") if h == 4.0 else (h in (1, 2, 3), h <= w, h >= w),
]
"""Of a height and a width: whole numbers and whatever else."""
sides = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(ARITHMETIC), sides, st.lists(sides, min_size=1, max_size=8))
def test_what_was_worked_out_once_holds_wherever_the_answers_are_the_same(work: Any, first: Any, others: Any) -> None:
    sizes = Sizes(first)
    made = list(work(sizes.given(0), sizes.given(1)))
    numbers = Numbers(sizes)
    places = [numbers.place(n) if type(n) in (int, Size) else None for n in made]
    assert numbers.run(first) is not None
    for other in (first, *others):
        found = numbers.run(other)
        if found is not None:
            again = [n if place is None else found[place] for n, place in zip(made, places, strict=True)]
            assert again == list(work(*other))


@pytest.mark.parametrize(("name", "batch"), [("csp_resnext50", 3), ("csp_peleenet_gfm", 1)])
def test_one_program_holds_for_all_ordinary_sizes(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are asked once; after that, arithmetic is all."""
    _, profile, _ = zoo(name)
    profile.at((1, 3, 256, 256))
    monkeypatch.setattr("cspprof.replay.plan.Forward", None)
    for shape in ((1, 3, 301, 333), (batch, 3, 512, 417)):
        assert profile.at(shape).inputs[0].shape == shape


def test_sizes_are_not_compared_unheard() -> None:
    size = Sizes([5]).given(0)
    with pytest.raises(TypeError, match="unhashable"):
        hash(size)


def test_a_rule_that_wants_plain_numbers_gets_them(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """It counts, but cannot be worked out with sizes that remember."""

    def count(side: int) -> int:
        return len({1, 4, side}) + side.bit_length()

    monkeypatch.setitem(
        RULES._entries, "aten.relu", lambda x, *, out: Facts(Kind.ACTIVATION, elementwise=count(out.shape[2]))
    )
    request.addfinalizer(memo.forget)  # no other test is to meet what this rule said
    profile = recorded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), 1, 3, 12, 12)
    conv, relu = profile.specs
    profile = dataclasses.replace(profile, specs=(conv, relu._replace(elementwise=count(12))))
    for side in (16, 300, 12):
        assert replay(profile, (1, 3, side, side)).specs[-1].elementwise == count(side)


# -- what is refused, by name -------------------------------------------------------------------------


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)), 4)


class Placed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 4, 12, 12))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places


def doing(line: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Doing(line)


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 144, 5)),
     r"layer '2' \(Linear\): aten.linear is a linear layer of fixed width: it was made for 288 features and gets 512"),
    (Padded, r"the forward of Padded asks for the shape of 1×3×12×12, and what it does with the answer"),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.LayerNorm([4, 12, 12])), "normalises over 4×12×12"),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Placed()), "which do not fit"),
    (doing(lambda x: x * x.shape[2]), "asks for the shape of 1×4×12×12"),
    (doing(lambda x: x.view(x.size(0), -1)[:, : x.numel() // 2]), "asks for the numel of"),
    (doing(lambda x: x.new_zeros(3) if len(x) else x), "asks for the shape of|makes a tensor like another one"),
    (doing(torch.zeros_like), r"makes a tensor like another one \(aten.zeros_like\)"),
    (doing(lambda x: x.view(4, 144)), r"aten.view wants the shape 4×144 of 1,024 elements"),
    (doing(lambda x: F.adaptive_avg_pool2d(x, (None, 3))), "asks for the size of 1×4×12×12"),
    (doing(lambda x: [t.relu() for t in x.split(5, 2)]), "aten.split"),
    (doing(lambda x: x + x.amax(1, keepdim=True).expand_as(x)), "does aten.expand_as on"),
    (doing(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)), "cannot be replayed on that input"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_a_record_cannot_know_is_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    profile = recorded(make(), 1, 3, 12, 12)
    with pytest.raises(ReplayError, match=message) as refused:
        replay(profile, (1, 3, 16, 16))
    assert "cspprof profile SPEC --input" in str(refused.value)
    assert replay(profile, (1, 3, 12, 12)) == profile


@pytest.mark.parametrize("line", [lambda x: x.float().relu(), lambda x: x.to(x.dtype) * 2])
def test_a_dtype_that_the_forward_asks_for_is_refused(line: Callable[[Tensor], Any]) -> None:
    module = Doing(line)
    profile = recorded(module, 1, 3, 12, 12)
    with pytest.raises(ReplayError, match="asks for the dtype of 1×4×12×12"):
        replay(profile, dtype="float16")
    assert_replayed(module, profile, (2, 3, 13, 15))


def test_attention_is_refused_by_name() -> None:
    pytest.importorskip("timm")
    profile = cspprof.profile("timm:vit_tiny_patch16_224")
    with pytest.raises(ReplayError, match=r"layer 'blocks.0.attn' \(Attention\): .* attention over tokens of a fixed"):
        profile.at((1, 3, 256, 256))


def test_a_slice_of_one_image_lies_otherwise_in_two() -> None:
    """Flattening half of the channels is a view of one image and a copy of two."""
    profile = recorded(Doing(lambda x: x[:, :2].flatten()), 1, 3, 12, 12)
    with pytest.raises(ReplayError, match=r"aten\.flatten would have to copy"):
        profile.at(batch=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": (3, 12, 12)}, "was recorded on 1×3×12×12, and gets 3×12×12"),
        ({"inputs": [(1, 3, 12, 12), (1, 3, 12, 12)]}, "was recorded with 1 inputs"),
        ({"inputs": (1, 4, 12, 12)}, "has other channels than the 4 that it gets"),
        ({"dtype": "int8"}, "cannot replay in int8"),
        ({"inputs": (1, 3, 12, 12), "batch": 2}, "have their batch already"),
    ],
)
def test_wrong_inputs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        replay(recorded(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1, 3, 12, 12), **options)


def test_a_record_that_nobody_watched_is_refused() -> None:
    on_cpu = trace(nn.Conv2d(3, 4, 3), (1, 3, 8, 8), device="cpu")
    assert on_cpu.looks is None
    with pytest.raises(ReplayError, match="does not say whether its forward depends on sizes"):
        replay(on_cpu, (1, 3, 9, 9))


# -- what a trace hears ---------------------------------------------------------------------------------


def test_tensors_are_themselves_again_after_a_trace() -> None:
    before = dict(vars(torch.Tensor))
    trace(nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
    with pytest.raises(TraceError):
        trace(nn.Conv2d(3, 4, 3), (1, 5, 8, 8))
    assert dict(vars(torch.Tensor)) == before


def test_questions_are_written_down_each_time() -> None:
    module = nn.Sequential(Doing(lambda x: x[:, : x.size(1) // 2]), nn.AdaptiveAvgPool2d((None, 2)))
    first, again = (trace(module, (1, 3, 8, 8)).looks for _ in range(2))
    assert first == again
    assert [(y.what, y.args, y.spec.shape) for y in first or ()] == [
        ("size", (("dim", 1),), (1, 4, 8, 8)),
        ("size", (), (1, 2, 8, 8)),
    ]


def test_plain_networks_ask_nothing() -> None:
    assert cspprof.profile("densenet121").looks == ()


# -- the command line ------------------------------------------------------------------------------------


def test_a_saved_profile_takes_another_input_without_torch(tmp_path: Path) -> None:
    file = cspprof.profile("csp_resnet10").save(tmp_path / "x.profile.json")
    cspprof.profile("csp_resnet10", (2, 3, 321, 320)).save(tmp_path / "fresh.profile.json")
    program = f"""
import sys
from cspprof.cli import main
try:
    main(["profile", {str(file)!r}, "--input", "2x3x321x320", "--save", {str(tmp_path / "made.profile.json")!r}])
except SystemExit as leaving:
    assert leaving.code == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made.profile.json").read_bytes() == (tmp_path / "fresh.profile.json").read_bytes()


def test_whatif(run: Callable[..., Any], tmp_path: Path) -> None:
    file = str(cspprof.profile("csp_resnet10").save(tmp_path / "x.profile.json"))
    told = run("whatif", file, "--size", "256,320x256", "--batch", "1,2", "--metric", "macs", "-f", "csv")
    assert told.code == 0
    rows = [line.rsplit(",", 2)[1] for line in told.out.splitlines()[1:]]
    shapes = ((1, 3, 256, 256), (1, 3, 320, 256), (2, 3, 256, 256), (2, 3, 320, 256))
    assert rows == [str(cspprof.profile("csp_resnet10", shape).total("macs")) for shape in shapes]


def test_whatif_says_what_it_cannot_and_leaves_with_2(run: Callable[..., Any], tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 144, 5))
    file = str(trace(module, (1, 3, 12, 12)).save(tmp_path / "x.profile.json"))
    told = run("whatif", file, "--size", "12,16")
    assert told.code == 2
    assert "1×3×16×16: Sequential cannot be replayed on that input: layer '2' (Linear)" in told.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "big"], "cannot read the number 'big'"),
        (["--size", "1x2x3"], "cannot read the size '1x2x3'"),
        (["--batch", "0"], "cannot read the number '0'"),
        (["--dtype", "int8"], "int8 is not a floating dtype"),
        (["--metric", "mac"], "mac"),
    ],
)
def test_whatif_refuses_what_it_cannot_read(run: Callable[..., Any], arguments: list[str], message: str) -> None:
    told = run("whatif", "squeezenet", *arguments)
    assert told.code == 2
    assert message in told.err


CROPS: list[Callable[[Tensor], Any]] = [
    lambda x: x[:, :, :20].relu(),
    lambda x: x[..., :20].relu(),
    lambda x: x[:, :2, :20] * 2,
    lambda x: x[:, :20, :20, 3] * 2,
    lambda x: x[:, :, 0:20, ::2] * 2,
    lambda x: x[:, :, : x.dim() * 5] * 2,
    lambda x: x[(slice(None), slice(None), slice(20))] * 2,
    lambda x: x[0, :, :20] * 2,
    lambda x: x[:, :2, ..., :20] * 2,
    lambda x: operator.getitem(x, (slice(None), slice(None), slice(20))) * 2,
    lambda x: [x[:, :2, crop] * 2 for crop in (slice(20),)],
    lambda x: x[:, :, : (stop := 20)] * x[:, :, :stop],
]


@pytest.mark.parametrize("line", CROPS)
def test_a_crop_that_left_everything_may_not_do_so_elsewhere(line: Callable[[Tensor], Any]) -> None:
    profile = recorded(Doing(line), 1, 3, 14, 14)
    assert_replayed(Doing(line), profile, (1, 3, 12, 10))
    with pytest.raises(ReplayError, match=r"up to a stop in dimension \d, which may lie within a larger map"):
        profile.at((1, 3, 24, 24))


@pytest.mark.parametrize(
    "line",
    [
        lambda x: x[:, :9].relu() * 2,
        lambda x: x[:, :4, :, :] * 2,
        lambda x: x[:, :2, ::2, 1:] * 2,
        lambda x: x[...] * x[:, :, :-1, :-1].mean(),
        lambda x: x[:, :, :10].relu(),
        lambda x: x[:, :, 2:10].relu(),
        lambda x: x[:, 1, :, ::2].relu() + x[:, None, 1, :, ::2].relu(),
        lambda x: [x[:, i] * 2 for i in range(3)],
    ],
)
def test_other_crops_are_what_they_are_at_every_size(line: Callable[[Tensor], Any]) -> None:
    profile = recorded(Doing(line), 1, 3, 14, 14)
    for shape in ((1, 3, 24, 26), (1, 3, 12, 8), (2, 3, 14, 18)):
        assert_replayed(Doing(line), profile, shape)


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, 3)
        return left.relu() + right.relu().mean()


def test_parts_of_a_dimension_that_changes_are_refused() -> None:
    record = trace(Halved(), (1, 3, 32, 48))
    assert record.at((2, 3, 40, 48)) == trace(Halved(), (2, 3, 40, 48))
    with pytest.raises(ReplayError, match="equal parts"):
        record.at((1, 3, 32, 47))
