"""Write `comparison.md`: what other counters print for ten networks, and why. With `--check`, exit with 1 unless the
page is current.

`comparison/counters.json` is what the tools printed for the networks, `comparison/probes.json` what they printed for
small models; CONTRIBUTING.md has the commands. The reasons come from cspprof's rule for each tool, which gives the
result of that tool from one profile.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from page_files import write_or_check

from cspprof.core.record import Record
from cspprof.core.units import change, short_count
from cspprof.metrics import value_of
from cspprof.metrics.conventions import Convention, conventions
from cspprof.sources import record_of_spec
from cspprof.sources.spec import Request

PAGE = Path(__file__).parent / "comparison.md"
COUNTERS = Path(__file__).parent / "comparison" / "counters.json"
PROBES = Path(__file__).parent / "comparison" / "probes.json"
INPUT = (1, 3, 224, 224)
NO_BREAK = "\N{NO-BREAK SPACE}"
RULES = {
    "FlopCounterMode": "flop_counter", "fvcore": "fvcore", "torchinfo": "torchinfo", "ptflops": "ptflops",
    "thop": "thop", "calflops": "calflops", "torchprofile": "torchprofile",
}  # fmt: skip
"""The tools, each with the name of cspprof's rule for it."""
TOOLS_RUN = ("python", "torch", "timm", *RULES)

HEAD = """\
# Beside other tools

All of these tools count the multiply-accumulates of a PyTorch model, and for most CNNs they are right within a few
percent. They differ in what they count besides, in what they miss, and in what they can tell about a network
afterwards. This page shows the results of each tool for ten networks at 224×224, and takes each difference apart.

`python docs/comparison.py` writes this page from one run of the tools: {versions}.

## Multiply-accumulates

The first column is the exact number: the products of all layers, equal to half of what torch's FlopCounterMode
(column *torch*) counts on meta. The others are what a tool prints, halved where its unit is two for each
multiply-accumulate, as the difference to that number: *=* is none at all, *≈* less than 0.05 %.

"""
REASONS = """
## What makes the difference

For {explained} of {results} results, cspprof's rule for the tool gives the printed number to the last digit, so the
reasons are known exactly. `cspprof explain conventions --model SPEC` prints them for a network of yours, and
`cspprof verify SPEC` runs fvcore and FlopCounterMode beside cspprof, layer by layer.

"""
SEES = """
## What a counter sees

Each line is a small model with one thing that a counter can miss, and the result of the tool with its default options,
beside the number by hand: *=* is that number, *–* means that the tool counts nothing. `python benchmarks/probes.py`
counts these models with the installed tools.

"""
DOES = """
## What else the tools do

"""
FEATURES = {
    "its number is": (
        "MACs, FLOPs, and those of the others", "FLOPs, 2 for each MAC", "MACs, called flops", "MACs, called mult-adds",
        "MACs", "MACs", "FLOPs and MACs", "MACs",
    ),
    "a table by module": ("yes", "yes", "yes", "yes", "yes", "by an option", "yes", "no"),
    "a rule for an operation of yours": ("yes", "yes", "yes", "no", "for modules", "for modules", "no", "yes"),
    "activations": (
        "elements, bytes, peak, traffic (CIO)", "no", "elements of convolutions and products", "bytes of outputs", "no",
        "no", "no", "no",
    ),
    "a backward pass": (
        "by rules, with the memory of a training step", "counts what runs", "no", "no", "no", "no",
        "estimates twice the forward", "no",
    ),
    "packages that it requires besides torch": ("10", "–", "8", "0", "0", "0", "2", "0"),
}  # fmt: skip
"""Features of each tool according to its documentation: cspprof first, then the tools in the order of `RULES`."""
TIME = """
## Time of a first count

Time of the first call in a process (CPU time, or wall time where that is less) on an idle machine, when torch and
the tool are imported and the model is built, as a multiple of that of cspprof, which computes all its metrics in this
time. Tools on meta compute no values; fvcore, ptflops, thop, calflops and torchprofile run the forward pass on the
CPU, and their times vary most.

"""
CHOICE = """
## Which to use

- **FlopCounterMode** comes with torch, so there is nothing to install. It counts whatever runs inside its context, so
  also a backward pass, an optimizer, or a part of a program that is not a model, and has a table by module.
- **fvcore** has handles for operations: a project with operators of its own may have written them already. It has
  tables by module and by operation, and also counts activations.
- **torchinfo** prints the table of modules, output shapes and parameters that many users know from Keras, and
  installs nothing else. Its number of multiply-adds misses what is no module, and much of transformers.
- **ptflops, thop, calflops, torchprofile** are one function each. ptflops and calflops print the model with the cost of
  each module; calflops takes the text models of transformers with their tokenizers, and estimates a backward pass.
- **cspprof** is for designing a network: integers for every layer, each with its memory traffic (CIO), peak memory,
  receptive field and gradients; two versions side by side with the stage and layer that changed; other input sizes;
  measured time; a gate in CI. It also reads Darknet cfgs, ONNX graphs and exported programs. It is larger than all of
  them, and requires more packages.
"""


def measured() -> dict[str, Any]:
    """The document that `benchmarks/run.py` wrote: versions, rounds, and the medians over the rounds."""
    document: dict[str, Any] = json.loads(COUNTERS.read_text())
    return document


def results() -> dict[str, Any]:
    """By network and tool: MACs, and the seconds of the first call."""
    found: dict[str, Any] = measured()["medians"]["counters"]
    return found


def printed(by_tool: dict[str, Any], tool: str) -> int | None:
    """The MACs of a tool; None if it failed."""
    return round(by_tool[tool]["macs"]) if tool in by_tool else None


def rule_value(rule: Convention, record: Record) -> int | None:
    """The MACs of a tool by cspprof's rule."""
    value = rule.total(record).value
    return None if value is None else round(value / rule.per_mac)


TITLES = ["torch" if tool == "FlopCounterMode" else tool for tool in RULES]


def head(column: str) -> list[str]:
    """The head of a table of networks, with a column for each tool."""
    return [f"| network | {column} | {' | '.join(TITLES)} |", f"| --- |{' ---: |' * (len(TITLES) + 1)}"]


def _tools_head(align: str) -> list[str]:
    """The head of a table with a column for cspprof and for each tool."""
    return [f"| | cspprof | {' | '.join(TITLES)} |", f"| --- |{f' {align} |' * (len(TITLES) + 1)}"]


def difference_table(records: dict[str, Record], found: dict[str, Any]) -> list[str]:
    lines = head("MACs")
    for model, record in records.items():
        exact = value_of(record, "macs")
        values = [printed(found[model], tool) for tool in RULES]
        cells = ["fails" if value is None else _difference(value, exact) for value in values]
        lines.append(f"| {_short(model)} | {short_count(exact).replace(' ', NO_BREAK)} | {' | '.join(cells)} |")
    return lines


def _difference(value: int, exact: int) -> str:
    relative = value / exact - 1
    return "=" if value == exact else "≈" if abs(relative) < 0.0005 else change(relative).replace(" ", "")


def _short(model: str) -> str:
    """The name of a network without its source and the sizes that timm adds."""
    return model.removeprefix("timm:").partition("_patch")[0]


class Reasons(NamedTuple):
    """Why the results of one tool differ from the exact numbers."""

    besides: Counter[str]
    """Kinds of operations that the tool counts in addition to products, each with the number of networks."""
    misses: Counter[str]
    """Kinds of products that the tool does not count, each with the number of networks."""
    unexplained: list[str]
    """The networks for which cspprof's rule does not give the printed number."""
    explained: int
    """The number of the other networks."""


def reasons(tool: str, records: dict[str, Record], found: dict[str, Any]) -> Reasons:
    rule = conventions()[RULES[tool]]
    besides, misses, unexplained, explained = Counter[str](), Counter[str](), [], 0
    for model, record in records.items():
        value = printed(found[model], tool)
        if value is None:
            continue
        if value != rule_value(rule, record):
            unexplained.append(_short(model))
            continue
        explained += 1
        for part, count in dict(rule.deviations(record)).items():
            if count:
                (besides if count > 0 else misses)[part.removeprefix("unseen ")] += 1
    return Reasons(besides, misses, unexplained, explained)


def reason_line(tool: str, why: Reasons) -> str:
    texts = [f"counts besides: {_of_networks(why.besides)}"] if why.besides else []
    texts += [f"misses: {_of_networks(why.misses)}"] if why.misses else []
    if why.unexplained:
        texts.append(f"no rule for {', '.join(why.unexplained)} (`cspprof explain {RULES[tool]}` has its limits)")
    return f"- **{tool}** {'; '.join(texts) or 'counts exactly the products'}."


def _of_networks(parts: Counter[str]) -> str:
    return ", ".join(f"{part} (in {n})" for part, n in parts.most_common())


def time_table(found: dict[str, Any]) -> list[str]:
    lines = head("cspprof")
    ratios: dict[str, list[float]] = {tool: [] for tool in RULES}
    for model, by_tool in found.items():
        ours = by_tool["cspprof"]["first"]
        cells = []
        for tool in RULES:
            if tool in by_tool:
                ratios[tool].append(by_tool[tool]["first"] / ours)
            cells.append(f"{ratios[tool][-1]:.1f}×" if tool in by_tool else "–")
        lines.append(f"| {_short(model)} | {1000 * ours:.0f} ms | {' | '.join(cells)} |")
    means = [f"{geometric_mean(values):.1f}×" if values else "–" for values in ratios.values()]
    return [*lines, f"| geometric mean | | {' | '.join(means)} |"]


def features_table() -> list[str]:
    """The table of features."""
    return [*_tools_head("---"), *(f"| {title} | {' | '.join(cells)} |" for title, cells in FEATURES.items())]


def sees_table(document: dict[str, Any]) -> list[str]:
    """The table of probes: the result of each tool as its difference to the number by hand."""
    tools, results = ["cspprof", *RULES], document["tools"]
    lines = _tools_head("---:")
    for name, case in document["cases"].items():
        cells = [_seen(results[tool][name], case["macs"]) for tool in tools]
        lines.append(f"| {case['title']} | {' | '.join(cells)} |")
    for key, title in ANSWERS.items():
        cells = ["yes" if results[tool][key] else "no" for tool in tools]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


ANSWERS = {
    "says": "says that it knows no cost of `torch.fft.fft2`",
    "meta": "counts a model on meta, without weights",
    "unchanged": "leaves a model in training mode as it was",
}


def _seen(result: dict[str, Any], exact: int) -> str:
    if "error" in result:
        return "fails"
    return "–" if not result["macs"] else _difference(result["macs"], exact)


def page() -> str:
    found = results()
    records = {model: record_of_spec(model, Request(INPUT)) for model in found}
    why = {tool: reasons(tool, records, found) for tool in RULES}
    explained = sum(w.explained for w in why.values())
    counted = explained + sum(len(w.unexplained) for w in why.values())
    versions = ", ".join(f"{name} {version}" for name, version in measured()["versions"].items() if name in TOOLS_RUN)
    return "\n".join([
        HEAD.format(versions=versions) + "\n".join(difference_table(records, found)),
        REASONS.format(explained=explained, results=counted) + "\n".join(reason_line(t, w) for t, w in why.items()),
        SEES + "\n".join(sees_table(json.loads(PROBES.read_text()))),
        DOES + "\n".join(features_table()),
        TIME + "\n".join(time_table(found)),
        CHOICE,
    ])  # fmt: skip


def main(arguments: list[str]) -> int:
    return write_or_check({PAGE: page()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
