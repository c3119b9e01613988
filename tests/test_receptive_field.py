"""The receptive field of each layer: hand-computed networks, published figures, and gradients of real tensors."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from fractions import Fraction
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cspprof
from cspprof.analysis.receptive_field import LayerField, receptive_fields
from cspprof.core.errors import UnknownNameError
from cspprof.render import Canvas, render
from cspprof.report.layer_tables import Breakdown, layer_table, split_columns
from cspprof.report.profile import profile_report
from cspprof.zoo import catalog


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors are small: with several threads, most of the time is that of starting them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """A network with a forward of its own and numbered layers."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = forward

    def forward(self, *inputs):
        return self.function(*inputs, *self.layers)


def conv(c=2, c_out=2, kernel=3, **options):
    return nn.Conv2d(c, c_out, kernel, **options)


def output_field(model, shape=(1, 2, 40, 48)) -> LayerField:
    """The field of the last operation that is not a view."""
    record = cspprof.profile(model, shape)
    return [field for field in receptive_fields(record) if field is not None][-1]


# -- the oracle -----------------------------------------------------------------------------------------


def gradient_spans(model, shape, index):
    """Along height and width, the first and last pixels with a gradient of the output elements at `index`."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1 / max(parameter[0].numel(), 1) if parameter.dim() > 1 else 1)
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = model(x * 1.0)
    output[(..., *index)].sum().backward()
    spans = []
    for axis in range(2, len(shape)):
        other = [d for d in range(len(shape)) if d != axis]
        touched = x.grad.abs().sum(other).nonzero().flatten().tolist()
        spans.append((touched[0], touched[-1]) if touched else None)
    return spans


def predicted_spans(field, shape, index):
    spans = [field.span(axis, position) for axis, position in enumerate(index)]
    if None in spans:  # an element that reads nothing along one axis reads nothing
        return [None] * len(spans)
    return [(max(low, 0), min(high, n - 1)) for (low, high), n in zip(spans, shape[2:], strict=True)]


def focus(x, c):
    parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return c(torch.cat(parts, 1))


def split_concatenation(x, a, b, c):
    """The second half of a concatenation reads the branch with the 7×7 only."""
    y = torch.cat([a(x), b(x)], 1)
    return c(y[:, 2:])


def window_attention(x, c):
    x = c(x)
    n, ch, h, w = x.shape
    x = x.view(n, ch, h // 8, 8, w // 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 64, ch)
    x = F.scaled_dot_product_attention(x, x, x)
    x = x.view(n, h // 8, w // 8, 8, 8, ch).permute(0, 5, 1, 3, 2, 4).reshape(n, ch, h, w)
    return F.conv2d(x, torch.ones(2, 2, 3, 3, dtype=x.dtype, device=x.device), padding=1)


def written_slices(x, a, b):
    y = x.new_zeros(x.shape[0], 4, *x.shape[2:])
    y[:, :2] = a(x)
    y[:, 2:] = b(x)
    return y * 2


def squeeze_excitation(x, c, d):
    x = c(x)
    return x * d(x.mean((2, 3), keepdim=True)).sigmoid()


def folded(x, c):
    y = F.unfold(c(x), 3, padding=1, stride=2).mean(1, keepdim=True)
    return F.fold(y.expand(-1, 18, -1), (38, 46), 3, padding=1, stride=2)


def recurrent(x, layer):
    return layer(x.mean(2).transpose(1, 2))[0].transpose(1, 2)[:, :, None]


def interleaved(x, c):
    """Upsampling by interleaving: a stack and a reshape."""
    y = torch.stack([c(x), c(x)], -1)
    return y.flatten(-2) * 2


SMALL = {
    "stride and dilation": nn.Sequential(conv(stride=2, padding=1), conv(dilation=3), conv(2, 2, (1, 5), stride=2)),
    "padding on one side": nn.Sequential(nn.ZeroPad2d((3, 0, 0, 2)), conv(2, 2, (2, 4)), conv(padding="same")),
    "average pooling": nn.Sequential(conv(), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d((2, 1)), conv(padding=1)),
    "transposed": nn.Sequential(conv(stride=2), nn.ConvTranspose2d(2, 2, 3, 2, 1, 1), nn.ConvTranspose2d(2, 2, 1, 3)),
    "transposed dilated": nn.Sequential(conv(stride=3), nn.ConvTranspose2d(2, 2, 4, 3, 1, dilation=2), conv()),
    "nearest": nn.Sequential(conv(stride=4), nn.Upsample(scale_factor=2), conv(padding=1), nn.Upsample(scale_factor=3)),
    "nearest to a size": nn.Sequential(conv(stride=3, padding=1), nn.Upsample(size=(33, 40)), conv(stride=2)),
    "bilinear": nn.Sequential(conv(stride=4), nn.Upsample(scale_factor=4, mode="bilinear"), conv()),
    "bilinear aligned": nn.Sequential(conv(stride=2), nn.Upsample(size=(30, 37), mode="bilinear", align_corners=True)),
    "bicubic": nn.Sequential(conv(stride=2), nn.Upsample(scale_factor=2, mode="bicubic"), conv(stride=2)),
    "reduction by bilinear": nn.Sequential(conv(), nn.Upsample(size=(13, 17), mode="bilinear"), conv()),
    "adaptive pooling": nn.Sequential(conv(), nn.AdaptiveAvgPool2d((5, 7)), conv(padding=1)),
    "pixel shuffle": nn.Sequential(conv(2, 8), nn.PixelShuffle(2), conv(), nn.PixelUnshuffle(2), conv(8)),
    "branches": Net(lambda x, a, b: a(x) + F.avg_pool2d(b(x), 3, 1, 1), conv(padding=1), conv(kernel=5, padding=2)),
    "shifted branches": Net(lambda x, a: a(x)[..., 3:, 3:] + x[..., :-5, 2:-3], conv()),
    "slices of every second pixel": Net(focus, conv(8)),
    "slice of a concatenation": Net(split_concatenation, conv(padding=1), conv(kernel=7, padding=3), conv(padding=1)),
    "windows": Net(window_attention, conv(padding=1)),
    "written into slices": Net(written_slices, conv(padding=1), conv(kernel=5, padding=2)),
    "squeeze and excitation": Net(squeeze_excitation, conv(padding=1), conv(kernel=1)),
    "interleaved": Net(interleaved, conv(stride=2)),
    "roll and flip": Net(lambda x, c: c(x.roll((2, -3), (2, 3)).flip(3)), conv()),
    "transposed map": Net(lambda x, c: c(x).transpose(2, 3).contiguous().permute(0, 1, 3, 2), conv(kernel=(3, 5))),
    "a column": Net(lambda x, c: c(x)[:, :, :, 7:8] * c(x), conv()),
    "a mean over rows": Net(lambda x, c: c(x).mean(2, keepdim=True) + c(x), conv()),
    "unfold and fold": Net(folded, conv()),
    "sliding windows": Net(lambda x, c: c(x).unfold(3, 5, 2).mean(-1), conv()),
    "recurrent rows": Net(recurrent, nn.GRU(2, 2, batch_first=True, bidirectional=True)),
    "group norm": nn.Sequential(conv(), nn.GroupNorm(1, 2), conv()),
    "dynamic weights": Net(lambda x, a: F.conv2d(x, a(x).mean((0, 2, 3)).view(1, 2, 1, 1), padding=0), conv()),
    "in place on a part": Net(lambda x, a: a(x).clone()[:, :1].add_(1), conv()),
    "grouped": nn.Sequential(conv(groups=2), nn.ChannelShuffle(2), conv(groups=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_field_is_where_the_gradient_of_an_output_element_is(name):
    model, shape = SMALL[name], (1, 2, 40, 48)
    field = output_field(model, shape)
    size = model(torch.zeros(shape)).shape[2:]
    for dy, dx in ((0, 0), (1, 0), (0, 1)):
        index = tuple(min(n // 2 + d, n - 1) for n, d in zip(size, (dy, dx), strict=True))
        assert predicted_spans(field, shape, index) == gradient_spans(model, shape, index)


ZOO = {"csp_peleenet": (384, 416), "csp_resnet50": (320, 320)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_fields_of_a_network_are_where_the_gradients_are(name):
    """With average pooling in place of max pooling, whose gradient is that of the largest element only."""
    shape = (1, 3, *ZOO[name])
    model = catalog().get(name).factory().double().eval()
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, child_name, pool)
    profile = cspprof.profile(model, shape, dtype="float64")
    fields = dict(zip((op.layer for op in profile.ops), profile.receptive_fields, strict=True))
    outputs = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out, path=path: outputs.setdefault(path, out))
            with torch.no_grad():
                module.weight.fill_(1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.bias)
    x = torch.rand(shape, dtype=torch.float64).requires_grad_()
    model(x * 1.0)
    for path in list(outputs)[:: len(outputs) // 6]:
        index = tuple(n // 2 for n in outputs[path].shape[2:])
        (gradient,) = torch.autograd.grad(outputs[path][(..., *index)].sum(), x, retain_graph=True)
        touched = [gradient.abs().sum(dims).nonzero().flatten() for dims in ((0, 1, 3), (0, 1, 2))]
        assert predicted_spans(fields[path], shape, index) == [(int(t[0]), int(t[-1])) for t in touched], path


# -- published and hand-computed figures ------------------------------------------------------------------

PUBLISHED = {
    "vgg16": ("features", 212),
    "resnet50_v1": ("stage4", 483),
    "resnet101_v1": ("stage4", 1027),
    "resnet152_v1": ("stage4", 1507),
    "torchvision:resnet50": ("layer4", 427),
    "csp_resnext50": ("stage4", 425),
    "csp_darknet53": ("stage5", 725),
}
"""Araujo et al. 2019 for VGG-16 and the ResNets with the stride in the first convolution of a stage; torchvision has it
in the 3×3. Bochkovskiy et al. 2020 (YOLOv4), Table 1, for the cross stage partial networks."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_receptive_fields_of_the_last_map_come_out(name):
    _, size = PUBLISHED[name]
    fields = [f for f in cspprof.profile(name).receptive_fields if f is not None and f.local[0] is not None]
    assert fields[-1].local == (size, size)
    assert fields[-1].stride == (32, 32)


def test_a_chain_by_hand():
    """7×7 stride 2 padding 3, pool 3×3 stride 2 padding 1, 3×3 dilation 2: sizes 7, 11, 27; offsets −3, −5, −5."""
    model = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, dilation=2))
    fields = cspprof.profile(model, (1, 3, 64, 64)).receptive_fields
    assert [f.size for f in fields] == [(7, 7), (11, 11), (27, 27)]
    assert [f.stride for f in fields] == [(2, 2), (4, 4), (4, 4)]
    assert [f.offset for f in fields] == [(-3, -3), (-5, -5), (-5, -5)]
    assert [f.center for f in fields] == [(0, 0), (0, 0), (8, 8)]


def test_height_and_width_differ_with_kernel_stride_and_padding():
    model = nn.Sequential(nn.Conv2d(3, 4, (1, 7), (1, 2), (0, 3)), nn.Conv2d(4, 4, (5, 2)))
    field = cspprof.profile(model, (1, 3, 64, 64)).receptive_fields[-1]
    assert (field.size, field.stride, field.offset) == ((5, 9), (1, 2), (0, -3))
    assert field.center == (2, 1)


def test_sequences_and_volumes_have_one_and_three_axes():
    sequence = cspprof.profile(nn.Sequential(nn.Conv1d(2, 2, 5, 3), nn.Conv1d(2, 2, 3)), (1, 2, 50))
    assert sequence.receptive_fields[-1].size == (11,)
    volume = cspprof.profile(nn.Conv3d(2, 2, (1, 3, 5), (1, 2, 2)), (1, 2, 8, 20, 20))
    assert volume.receptive_fields[-1].size == (1, 3, 5)
    assert volume.receptive_fields[-1].stride == (1, 2, 2)


def test_upsampling_has_a_fractional_stride():
    field = output_field(nn.Sequential(conv(stride=2), nn.Upsample(scale_factor=4)))
    assert (field.size, field.stride) == ((3, 3), (Fraction(1, 2), Fraction(1, 2)))


def test_both_sides_of_a_cross_stage_split_are_told_apart():
    profile = cspprof.profile("csp_resnext50")
    fields = {op.layer: f for op, f in zip(profile.ops, profile.receptive_fields, strict=True) if op.kind == "concat"}
    for stage, sides in {"stage1": (33, 9), "stage2": (89, 41), "stage3": (265, 105), "stage4": (425, 297)}.items():
        branches = fields[stage].branches
        assert [b.size for b in branches] == [(side, side) for side in sides]
        assert len({b.stride for b in branches}) == 1
        assert {b.source.split(".")[1] for b in branches} == {"block_transition", "bypass"}


def test_branches_have_their_own_sizes_and_offsets_and_the_union_contains_them():
    model = Net(lambda x, a, b: a(x)[..., 2:-2, 2:-2] + b(x), conv(), conv(kernel=7))
    field = output_field(model)
    assert [(b.size, b.offset) for b in field.branches] == [((3, 3), (2, 2)), ((7, 7), (0, 0))]
    assert (field.size, field.offset) == ((7, 7), (0, 0))


# -- operations over the whole map ------------------------------------------------------------------------


def test_squeeze_and_excitation_sees_the_whole_input_and_keeps_the_local_field():
    field = output_field(Net(squeeze_excitation, conv(padding=1), conv(kernel=1)))
    assert (field.size, field.everywhere, field.local, field.stride) == ((40, 48), (True, True), (3, 3), (1, 1))


def test_global_pooling_after_a_stride_misses_the_pixels_that_the_stride_skips():
    field = output_field(nn.Sequential(conv(kernel=1, stride=4), nn.AdaptiveAvgPool2d(1)), (1, 2, 39, 40))
    assert field.size == (37, 37)


def test_attention_over_all_tokens_sees_the_whole_input():
    field = cspprof.profile("timm:vit_tiny_patch16_224").receptive_fields[-1]
    assert field.size == (224, 224)
    assert not field.at_least


def test_attention_in_windows_sees_one_window():
    profile = cspprof.profile("timm:swin_tiny_patch4_window7_224")
    sizes = {op.layer: f for op, f in zip(profile.ops, profile.receptive_fields, strict=True) if f is not None}
    assert sizes["layers.0.blocks.0.mlp.fc2"].size == (28, 28)  # 7 patches of 4 pixels
    assert sizes["layers.0.blocks.1.mlp.fc2"].size == (56, 56)  # the shifted windows reach into two
    assert not any(f.at_least for f in sizes.values())


# -- what is not known ------------------------------------------------------------------------------------


def test_an_operation_of_unknown_reach_says_so_and_what_is_behind_it_is_a_lower_bound():
    def sampled(x, c, d, e):
        grid = torch.zeros(1, 38, 46, 2, device=x.device, dtype=x.dtype)
        return e(F.grid_sample(c(x), grid, align_corners=False)) + d(x)

    profile = cspprof.profile(Net(sampled, conv(), conv(kernel=5), conv()), (1, 2, 40, 48))
    by_name = {op.spec.name: f for op, f in zip(profile.ops, profile.receptive_fields, strict=True) if f is not None}
    assert by_name["grid_sampler"].reach_unknown
    assert by_name["add"].at_least
    assert not by_name["add"].reach_unknown
    assert by_name["add"].size == (5, 5)


def test_a_write_into_a_part_of_the_positions_is_not_followed():
    def shifted(x, c):
        y = c(x)
        y[:, :, 1:] = x[:, :, :-3, :-2]
        return y * 2

    assert output_field(Net(shifted, conv())).unknown


def test_branches_of_different_strides_are_exact_inside_the_map_and_a_lower_bound_behind_it():
    model = Net(lambda x, c, d: F.interpolate(c(x), size=(39, 47)) + x[..., :39, :47], conv(stride=2), conv())
    field = output_field(model)
    assert field.at_least
    assert field.stride == (None, None)
    index = (20, 20)
    assert predicted_spans(field, (1, 2, 40, 48), index) == gradient_spans(model, (1, 2, 40, 48), index)


def test_a_model_without_positions_has_no_fields():
    assert cspprof.profile(nn.Linear(4, 4), (2, 4)).receptive_fields == [None]


# -- other sources ----------------------------------------------------------------------------------------


def test_a_saved_profile_has_the_same_fields(tmp_path):
    profile = cspprof.profile(SMALL["slice of a concatenation"], (1, 2, 40, 48))
    profile.save(tmp_path / "x.profile.json")
    loaded = cspprof.profile(str(tmp_path / "x.profile.json"))
    assert loaded == profile
    assert loaded.receptive_fields == profile.receptive_fields


def test_two_views_of_the_same_shape_are_told_apart():
    def halves(x, a, b, c):
        y = torch.cat([a(x), b(x)], 1)
        first, second = y.chunk(2, 1)
        return c(first), c(second)

    model = Net(halves, conv(padding=1), conv(kernel=7, padding=3), conv(padding=1))
    fields = [f for f in cspprof.profile(model, (1, 2, 40, 48)).receptive_fields if f is not None]
    assert [f.size[0] for f in fields] == [3, 7, 7, 5, 9]
    record = cspprof.profile(model, (1, 2, 40, 48))
    without = replace(record, calls=replace(record.calls, views={}))
    assert [f.unknown for f in receptive_fields(without) if f is not None] == [False, False, False, True, True]


def test_an_onnx_file_has_the_fields_of_its_module(tmp_path):
    def forward(x, a, b, c, d):
        y = F.max_pool2d(torch.cat([a(x), b(x)], 1)[:, 1:], 3, 2, 1)
        y = F.interpolate(F.pad(c(y), (1, 2, 3, 0)), scale_factor=2, mode="bilinear")[:, :, 1:, ::2]
        return d(y) * y.mean((2, 3), keepdim=True)

    layers = conv(padding=1), conv(kernel=5, padding=2), conv(3, 2), nn.ConvTranspose2d(2, 2, 1)
    model = Net(forward, *layers).eval()
    torch.onnx.export(model, (torch.zeros(1, 2, 40, 48),), tmp_path / "x.onnx", dynamo=False)
    field = [f for f in cspprof.profile(str(tmp_path / "x.onnx")).receptive_fields if f is not None][-1]
    assert field.axes == output_field(model).axes
    assert not field.at_least


# -- tables and charts ------------------------------------------------------------------------------------

SHORTCUT = """
from torch import nn

class Net(nn.Module):
    example_input_shape = (1, 3, 16, 16)

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return x + self.conv(x)
"""


def test_the_columns_of_a_layer_table():
    how = Breakdown(layers=True)
    names = split_columns("rf", how)
    assert names == ("layer", "rf_size", "rf_stride", "rf_offset", "rf_center", "rf_branches")
    table, records = layer_table(cspprof.profile("vgg16"), how._replace(columns=names), ["macs"], "macs")
    assert [c.name for c in table.columns] == list(names)
    last_conv = next(r for r in records if r["rf_size"] == "196×196")
    assert (last_conv["rf_stride"], last_conv["rf_offset"], last_conv["rf_center"]) == ("16", "-90", "7.5")
    assert records[-1]["rf_size"] == "224×224 global"
    assert records[-1]["rf_stride"] == "–"


def test_a_terminal_shows_the_whole_field_of_each_branch_and_the_page_has_the_table():
    how = Breakdown(layers=True, columns=("layer", "rf_size", "rf_branches"))
    report = profile_report("profile", [cspprof.profile("csp_resnet50")], ["macs"], "macs", how)
    printed = " ".join(render("rich", report, Canvas(90)).decode().split())
    assert "stage1.bypass.act 9×9, stride 4, offset -3" in printed
    assert "…" not in printed
    page = render("html", report).decode()
    assert "<h2 id=h-section>Receptive fields</h2>" in page
    assert ">33×33<" in page


def test_json_has_the_field_of_each_layer_and_branch(run, tmp_path, monkeypatch):
    """By hand: 3×3 with stride 2 and padding 1, then 3×3 with padding 1 beside a shortcut."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SHORTCUT)
    document = json.loads(run("profile", "net.py:Net", "--layers", "--columns", "rf", "-f", "json").out)
    jsonschema.validate(
        document, json.loads((resources.files("cspprof") / "schemas" / "cio-1.schema.json").read_text())
    )
    stem, conv, add = (layer["receptive_field"] for layer in document["models"][0]["layers"])
    assert (stem["size"], stem["stride"], stem["offset"], stem["center"]) == ([3, 3], [2, 2], [-1, -1], [0, 0])
    assert (conv["size"], conv["offset"], conv["global"]) == ([7, 7], [-3, -3], [False, False])
    assert {b["source"]: b["size"] for b in add["branches"]} == {"stem": [3, 3], "conv": [7, 7]}
    assert "receptive_field" not in run("profile", "net.py:Net", "--layers", "-f", "json").out


def test_groups_of_layers_have_no_receptive_field():
    with pytest.raises(UnknownNameError, match="no column named 'rf' in a table of modules"):
        split_columns("rf", Breakdown(depth=1))


def test_unknown_reach_is_a_question_mark_and_a_note():
    model = Net(lambda x, c: c(F.grid_sample(x, x.permute(0, 2, 3, 1), align_corners=False)), conv())
    report = profile_report(
        "profile", [cspprof.profile(model, (1, 2, 8, 8))], ["macs"], "macs",
        Breakdown(layers=True, columns=("layer", "rf_size")),
    )  # fmt: skip
    assert [r["rf_size"] for r in report.records] == ["?", "≥ 3×3"]
    assert any("1 × aten.grid_sampler" in note for note in report.notes)


def test_a_note_names_the_layer_in_which_branches_of_different_strides_meet():
    model = Net(lambda x, c, d: d(F.interpolate(c(x), size=(39, 47)) + x[..., :39, :47]), conv(stride=2), conv())
    report = profile_report(
        "profile", [cspprof.profile(model, (1, 2, 40, 48))], ["macs"], "macs",
        Breakdown(layers=True, columns=("layer", "rf_size")),
    )  # fmt: skip
    (note,) = [note for note in report.notes if "≥" in note]
    assert "(2 operations, the first in aten.add)" in note


def test_the_chart_shows_both_sides_of_each_split():
    chart = cspprof.plot("receptive-field", "csp_resnext50")
    sides = [r["rf_size"] for r in chart.records if r["series"] == "sides of a cross stage split"]
    assert sides == [33, 9, 89, 41, 265, 105, 425, 297]
    assert max(r["rf_size"] for r in chart.records if r["series"] == "receptive field") == 425
