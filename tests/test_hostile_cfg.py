"""Darknet cfgs with sizes, lists and files beyond the limits: an error with the line, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.sources.darknet.cfg import MAX_FILE, MAX_INPUTS, MAX_LIST, MAX_SECTIONS
from cspprof.sources.darknet.layers import LAYER_BUILDERS, MAX_ELEMENTS

HUGE = 2**31 - 1
NET = "[net]\nwidth=8\nheight=8\nchannels=4\n"
CONV = "[conv]\nfilters=4\n"


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "net.cfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(folder: Path, text: str | bytes) -> str:
    """The message of the error with which a cfg is refused; it names the file and what to do."""
    with pytest.raises(CspprofError) as refused:
        cspprof.profile(write(folder, text))
    assert refused.value.message.startswith("net.cfg")
    assert refused.value.hint
    assert len(refused.value.message) < 300
    return refused.value.message


TOO_LARGE = {
    "weight": f"[conv]\nsize={HUGE}\npad=1\nfilters={HUGE}",
    "map": f"[upsample]\nstride={HUGE}\n[upsample]\nstride=9",
    "padded map": f"[conv]\nsize=3\npadding={HUGE}\ndilation={HUGE}",
    "implicit": f"[implicit]\nfilters={HUGE}\natoms={HUGE}",
    "connected": f"{CONV}[upsample]\nstride=20000000\n[connected]\noutput={HUGE}",
    "local": f"[upsample]\nstride=4000000\n[local]\nfilters={HUGE}",
    "depth": f"[maxpool]\nmaxpool_depth=1\nout_channels={HUGE}\n[upsample]\nstride={HUGE}",
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_layer_larger_than_a_tensor_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, NET + TOO_LARGE[name])
    assert "is too large for a tensor" in message
    assert message.startswith("net.cfg, line ")


def test_a_window_larger_than_the_map_has_no_weight(tmp_path: Path) -> None:
    assert "does not fit" in refusal(tmp_path, f"{NET}[conv]\nsize={HUGE}\n")


@pytest.mark.parametrize("shape", [f"{HUGE}x4x8x8", f"1x4x{HUGE}x{HUGE}", "1x4x99999999999x99999999"])
def test_an_image_larger_than_a_tensor_is_refused(shape: str, tmp_path: Path) -> None:
    inputs = tuple(map(int, shape.split("x")))
    with pytest.raises(CspprofError, match=r"too large for a tensor|does not fit"):
        cspprof.profile(write(tmp_path, NET + CONV + "[upsample]\nstride=200000\n[upsample]\nstride=9000"), inputs)


def test_the_largest_map_has_exact_macs(tmp_path: Path) -> None:
    p = cspprof.profile(write(tmp_path, f"{NET}[upsample]\nstride={2**25}\n{CONV}"))
    assert p.total("macs") == 4 * 4 * 2**56
    assert p.ops[-1].writes[0].numel == 4 * 2**56 <= MAX_ELEMENTS


def test_a_window_with_more_elements_than_a_profile_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    path.write_text("[net]\nwidth=6\nheight=6\nchannels=8\n[maxpool]\nsize=214748364\n")
    with pytest.raises(CspprofError, match=r"net\.cfg.*counts more than 9,223,372,036,854,775,807"):
        cspprof.profile(str(path))


def test_lists_and_sections_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    many = ",".join(["-1"] * (MAX_LIST + 1))
    assert "lists 1,001 numbers" in refusal(tmp_path, f"{NET}{CONV}[shortcut]\nweights_type=per_channel\nfrom={many}")
    sources = ",".join(["0"] * MAX_LIST)
    text = NET + CONV + f"[route]\nlayers={sources}\n" * (MAX_INPUTS // MAX_LIST + 1)
    assert "the layers up to this one read 21,000 maps" in refusal(tmp_path, text)
    assert "a section too many" in refusal(tmp_path, NET + "[empty]\n" * MAX_SECTIONS)


def test_a_shortcut_of_many_maps_is_counted(tmp_path: Path) -> None:
    others = ",".join(["-1"] * 100)
    p = cspprof.profile(write(tmp_path, f"{NET}{CONV}[shortcut]\nweights_type=per_channel\nfrom={others}"))
    assert (p.total("macs"), p.params) == (4 * 4 * 64, 4 * 4 + 4 + 101 * 4)


@pytest.mark.parametrize(
    "line", ["filters=１２", "filters=²", "filters=1e9", "size=nan", "filters=" + "9" * 100_000, "stride=-1",
             "groups=3", "stride=0", "filters=0x10", "activation=" + "x" * 100_000]
)  # fmt: skip
def test_an_odd_number_is_refused_or_noted(line: str, tmp_path: Path) -> None:
    if line.startswith("activation"):
        (note,) = [n for n in cspprof.profile(write(tmp_path, f"{NET}{CONV}{line}")).notes if "unknown" in n]
        assert len(note) < 200
    else:
        assert "line 6" in refusal(tmp_path, f"{NET}[conv]\n{line}")


@pytest.mark.parametrize("number", ["nan", "inf", "1e999", "-1e999", "1_0", "٣", ""])
def test_a_scale_is_a_finite_number(number: str, tmp_path: Path) -> None:
    assert "is not a number" in refusal(tmp_path, f"{NET}[upsample]\nscale={number}")


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", NET.encode() + b"\0", b"[net]\n[" + b"x" * 100_000 + b"]", b"[" * 100_000,
             NET.encode() + b"[" + b"y" * 30 + b"]\n" * 1, b"x" * (MAX_FILE + 1)]
)  # fmt: skip
def test_what_is_no_cfg_is_refused_with_a_short_message(text: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, text)


def test_lines_without_an_equals_sign_have_few_notes(tmp_path: Path) -> None:
    notes = cspprof.profile(write(tmp_path, NET + CONV + "skipped\n" * 10_000)).notes
    assert (len(notes), notes[-1]) == (21, "9,980 more lines of net.cfg have no '=' and are skipped")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("ending", ["cfg", "onnx", "pt2"])
def test_a_pipe_is_not_read(ending: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")
    with pytest.raises(CspprofError, match="is not a file"):
        cspprof.profile(str(tmp_path / f"pipe.{ending}"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(LAYER_BUILDERS)),
            st.dictionaries(
                st.sampled_from(["size", "stride", "pad", "padding", "filters", "groups", "from", "layers", "dilation",
                                 "output", "atoms", "classes", "mask", "antialiasing", "xnor", "reverse", "scale"]),
                st.sampled_from(["0", "1", "2", "3", "-1", "-2", "7", "65536", "2147483647", "-1,-1", "0.5"]),
                max_size=4,
            ),
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_any_sections_give_a_profile_or_an_error_with_the_file(
    tmp_path_factory: pytest.TempPathFactory, sections: list[tuple[str, dict[str, str]]]
) -> None:
    text = NET + "".join(
        f"[{kind}]\n" + "".join(f"{key}={value}\n" for key, value in options.items()) for kind, options in sections
    )
    path = write(tmp_path_factory.mktemp("cfg"), text)
    message, hint = "", ""
    try:
        cspprof.profile(path)
    except CspprofError as error:
        message, hint = error.message, error.hint
    assert not message or ("net.cfg" in message and hint)
