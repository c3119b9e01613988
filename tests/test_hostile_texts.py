"""SPECs, quantities, inputs, constraints and axes that are too large, too deep or odd: a value, or an error with a
hint, at once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cspprof.analysis.constraints import parse_constraints
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_device, parse_inputs
from cspprof.core.literals import MAX_LENGTH, TooLargeError, is_number, parse_literal
from cspprof.core.units import parse_quantity
from cspprof.csp.closed_form.sized_block import parse_gamma
from cspprof.sources import parse, record_of_spec
from cspprof.sources.spec import MAX_SPEC
from cspprof.sweeps.space import Space, expand_models, parse_grid, parse_shard, parse_sizes, parse_values
from cspprof.sweeps.space_file import read_space_file

DIGITS = "9" * 100_000
NESTED = "(" * 1_000 + ")" * 1_000


def refusal(read: Callable[..., Any], *arguments: Any) -> CspprofError:
    """The error of a reader: short, with a hint."""
    with pytest.raises(CspprofError) as refused:
        read(*arguments)
    assert refused.value.hint
    assert len(str(refused.value)) < 600
    return refused.value


def value_or_error(read: Callable[[str], Any], text: str) -> Any:
    """The value of a text, or the error with which it is refused."""
    try:
        return read(text)
    except CspprofError as error:
        return error


# -- quantities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [DIGITS, f"1e{DIGITS}", "1e99999999", "1e-99999999", "1e100", "nan", "inf", "１２ M", "٣", "²", "9**9**9",
             "1" + " " * 100_000 + "x", "-" * 100_000, 10**5_000, -(10**80), float("nan"), float("inf"), True],
    ids=lambda text: str(text)[:20] if not isinstance(text, int) else "integer",
)  # fmt: skip
def test_a_quantity_of_very_many_digits_is_refused(text: Any) -> None:
    refusal(parse_quantity, text)


def test_the_largest_quantities_are_exact() -> None:
    assert parse_quantity("1e99").value == 10**99
    assert parse_quantity("1e-99").value == Fraction(1, 10**99)
    assert parse_quantity(10**80 - 1).value == 10**80 - 1
    assert parse_quantity("9" * 80).value == 10**80 - 1
    assert parse_quantity(1e18).value == 10**18


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="0123456789.,_eE+-−kMGTPiB% \0²٣x", max_size=90))
def test_any_text_is_a_quantity_or_is_refused(text: str) -> None:
    found = value_or_error(parse_quantity, text)
    assert found.hint if isinstance(found, CspprofError) else abs(found.value) < 10**200


@settings(max_examples=50, deadline=None)
@given(st.integers(-(10**18), 10**18), st.sampled_from(["", "k", "M", "G", "T", "P"]))
def test_an_integer_with_a_prefix_has_its_exact_value(n: int, prefix: str) -> None:
    assert parse_quantity(f"{n} {prefix}").value == n * 1000 ** " kMGTP".index(prefix or " ")


# -- literals, SPECs and inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["9" * 5_000, f"0x{'f' * 5_000}", NESTED, "[" * 1_500 + "]" * 1_500])
def test_a_literal_beyond_the_limits_is_refused(text: str) -> None:
    with pytest.raises(TooLargeError):
        parse_literal(text)


def test_very_many_signs_are_refused() -> None:
    """As nested too deeply or as no literal: this depends on the version of Python."""
    with pytest.raises(ValueError, match=r"."):
        parse_literal("-" * 2_900 + "1")


@pytest.mark.parametrize(
    "text", ["{[]}", "{{}: 1}", "9**9**9", "__import__('os')", "a.b", "", "\0", "\ud800", "(", "f''"]
)
def test_what_is_no_literal_has_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_literal(text)
    assert not isinstance(error.value, TooLargeError)


def test_the_longest_integer_of_a_literal_can_be_shown() -> None:
    assert str(parse_literal(f"0x{'f' * (MAX_LENGTH - 2)}")).isdecimal()


@pytest.mark.parametrize(
    ("text", "finite"),
    [("1", True), ("-0.5", True), (".5", True), ("2.", True), ("1e-4", True), ("1e999", False), ("nan", False),
     ("inf", False), ("1_0", False), ("１", False), ("", False), (".", False), (DIGITS, False), ("0x1", False)],
)  # fmt: skip
def test_numbers_are_finite_and_in_ascii_digits(text: str, finite: bool) -> None:
    assert is_number(text) is finite


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "a" * 300, "a/" * 5_000, f"net,x={DIGITS}", f"net,x={NESTED}", f"net,{'x' * 5_000}=1,{'x' * 5_000}=1",
        "net\0", "net\udce9.cfg", "net,x=(1", "net,=1", "net,1=1", "net" + ",x" * 3_000, "x" * (MAX_SPEC + 1),
        "...", "a/...", ". .", "../..", "a:..", "..:a", ":", "::", "a:b:c", ".cfg", "/.onnx", "x\n.cfg",
        "C:\\x,x={[]}", "\\" * 256, "a:" * 200, f"{'a' * 200}:{'b' * 200}.onnx",
        "timm:", f"timm:{'*' * 200}", "torchvision:\n", "a" * 250 + ".profile.json", "é" * 200,
    ],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_a_spec_that_names_nothing_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CspprofError) as refused:
        record_of_spec(text)
    assert len(refused.value.message) < 1_000
    assert "This is a bug" not in str(refused.value)


def test_an_option_that_is_no_literal_is_a_text() -> None:
    assert parse("net,x={[]},y=9**9**9,z=(1, 2)").options == {"x": "{[]}", "y": "9**9**9", "z": (1, 2)}


def test_a_file_with_a_long_name_is_refused_by_the_command(run: Callable[..., Result]) -> None:
    result = run("cio", "a" * 300)
    assert (result.code, "more than 255 bytes" in result.err) == (2, True)


def test_a_network_of_a_billion_blocks_is_not_built(run: Callable[..., Result]) -> None:
    result = run("cio", "darknet53,depths=(1000000000,1,1,1,1)")
    assert (result.code, "more than 1,000 blocks" in result.err) == (2, True)


@pytest.mark.parametrize(
    "text",
    [DIGITS, "x".join(["2"] * 65), "x".join(["1"] * 600), "9223372036854775808", "4294967296x4294967296", "1x１２",
     "1x²", "1x-1", f"x:={DIGITS}", f"x:={NESTED}", "x={[]}", "x=(", "1x3:" + "f" * 5_000, "\0", "1x3\udce9",
     "99999999999x99999999"],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_an_input_that_no_tensor_can_have_is_refused(text: str) -> None:
    refusal(parse_inputs, [text])


def test_the_largest_inputs_are_read() -> None:
    (spec,) = parse_inputs([f"{2**61 - 1}"]).args
    assert spec.nbytes == 4 * (2**61 - 1)
    assert len(parse_inputs(["x".join(["1"] * 64)]).args[0].shape) == 64


@pytest.mark.parametrize("name", ["cuda:99999999999", "cpu:x", "cuda:", "cuda:²", "x" * 5_000, ""])
def test_a_device_without_a_small_number_is_refused(name: str) -> None:
    refusal(parse_device, name)


def test_a_message_that_repeats_a_long_text_has_no_middle() -> None:
    error = CspprofError("net.cfg: " + "a" * 10**6 + " is wrong", "b" * 10**6)
    assert (len(error.message), len(error.hint or "")) == (2_000, 2_000)
    assert error.message.startswith("net.cfg: aaa")
    assert error.message.endswith("aaa is wrong")


# -- constraints and axes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "macs", f"macs<={DIGITS}", "macs<=1e99999999", "macs" + " " * 100_000 + "<=1",
             "macs<=1" + " and" * 50_000, "x" * 900 + "<=1", "macs<=nan", "(" * 900 + "<=1", "macs<=１", "macs<==1"],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_a_constraint_without_a_number_is_refused(text: str) -> None:
    refusal(parse_constraints, [text])


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=", "=1", "a=1:2:1e-300", "a=0:1e18:1", "a=1:2:0", "a=1:1e999", f"a=1:{DIGITS}", "a=1e308:1e308:1e-308",
     "a=1j:2j", "a='x':'y'", "a=1:2:'x'", "a={1}", "a=1e999", "a=b'x'", "a=...", "a=({1},)", "a=" + "1," * 20_000,
     "a=" + "(" * 5_000, "a=nan:1", f"{'a' * 5_000}-=1", "a=True:5"],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_an_axis_without_an_end_is_refused(text: str) -> None:
    refusal(parse_grid, [text])


def test_axes_of_plain_values_are_read() -> None:
    read = parse_grid(["a=[1,2],None,x,0.5,True", "b=3:1:-1", "c=0:10000:1.25"])
    assert (read["a"], read["b"], len(read["c"])) == ([(1, 2), None, "x", 0.5, True], [3, 2, 1], 8_001)


def test_a_space_of_more_candidates_than_numbers_is_refused() -> None:
    axes = {name: range(10_000) for name in "abcde"}
    refusal(lambda: Space(["net"], axes, sample=3))
    refusal(lambda: Space(["net"], {"a": range(10)}, sample=10**12))
    assert len(list(Space(["net"], {name: range(10_000) for name in "abcd"}, sample=3))) == 3


@pytest.mark.parametrize("text", [DIGITS, "²", "１x２x３", "0", "1x", "-1", "192:320:1e-300", "x" * 5_000])
def test_a_size_that_is_no_number_is_refused(text: str) -> None:
    refusal(parse_sizes, text)


@pytest.mark.parametrize("text", [f"1/{DIGITS}", "²/2", "1/", "/", "1/2/3", "-1/2"])
def test_a_shard_that_is_no_number_is_refused(text: str) -> None:
    refusal(parse_shard, text)


def test_a_long_glob_is_refused() -> None:
    refusal(expand_models, ["*a" * 200])
    refusal(parse_values, "1:2:1e-300", "--batch")


@pytest.mark.parametrize(
    "text",
    ["\xff", "a = " + "[" * 50_000, f"batch = {DIGITS}", 'grid.a = "1:2:1e-300"', "grid.a = [nan]", "grid.a = []",
     "x" * 2**21, "models = 3", f"grid.{'a' * 5_000} = [[[1]]]", "size = [0]", "batch = 1.5"],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_a_file_with_an_odd_space_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_bytes((text if "models" in text else f'models = ["resnet10"]\n{text}').encode("latin-1"))
    assert "space.toml" in refusal(read_space_file, path).message


@pytest.mark.parametrize("text", ["1e99999999", f"1/{DIGITS}", f"{DIGITS}/1", "1/0", "nan", "inf", "½", "１/２"])
def test_a_bypassed_fraction_of_very_many_digits_is_refused(text: str) -> None:
    refusal(parse_gamma, text)


def test_a_bypassed_fraction_is_exact() -> None:
    assert [parse_gamma(value) for value in ("0.3", 0.3, " 3/10 ", Fraction(3, 10))] == [Fraction(3, 10)] * 4


@pytest.mark.parametrize(
    "arguments",
    [("whatif", "resnet10", "--batch", DIGITS[:5_000]), ("whatif", "resnet10", "--size", "²"),
     ("convert", "resnet10", "--gamma", "nan"), ("convert", "resnet10", "--gamma", "0:1e999:1"),
     ("closed-form", "dense", "--c", "99999999999"), ("closed-form", "harmonic", "--c", "64", "--m", "99999999"),
     ("sweep", "resnet10", "--grid", "gamma=1:2:1e-300"), ("sweep", "resnet10", "--where", "macs<=1e99999999"),
     ("sweep", "resnet10", "--memory", "1e99999999"), ("cio", "resnet10", "--input", DIGITS[:5_000]),
     ("cio", "resnet10", "--device", "cuda:99999999999"), ("cio", "resnet10,num_classes=" + "9" * 2_000)],
    ids=lambda arguments: " ".join(arguments)[:40],
)  # fmt: skip
def test_a_command_refuses_odd_numbers_with_one_message(arguments: tuple[str, ...], run: Callable[..., Result]) -> None:
    result = run(*arguments)
    assert result.code == 2, result.err
    assert len(result.err) < 3_000
    assert "This is a bug" not in result.err
    assert "Traceback" not in result.err


GRAMMARS: list[Callable[[str], object]] = [
    parse, parse_quantity, parse_sizes, parse_shard, lambda t: parse_inputs([t]), lambda t: parse_constraints([t]),
    lambda t: parse_grid([t]), lambda t: parse_grid([f"a={t}"]), lambda t: parse(f"net,x={t}"),
    lambda t: parse_inputs([f"x:={t}"]), lambda t: parse_constraints([f"macs<={t}"]),
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="0123456789.,:=x×()[]{}'\"<>+-eE %kM and_macs", max_size=60),
        st.builds(lambda part, n: part * n, st.text(max_size=3), st.integers(1, 3_000)),
    )
)
def test_any_text_is_read_or_refused_with_a_hint(text: str) -> None:
    refused = [found for read in GRAMMARS if isinstance(found := value_or_error(read, text), CspprofError)]
    assert all(error.hint and len(error.message) < 1_000 for error in refused)
