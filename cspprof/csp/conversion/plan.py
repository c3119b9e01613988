"""The widths of a CSP stage: how many channels bypass the blocks, and what each transition maps to what."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

from cspprof.core.errors import CspprofError
from cspprof.core.formulas import bypass_channels
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.stages import Stage

FUSIONS = ("csp", "first", "last")
SPLITS = ("conv", "slice")
RECIPES = ("keep", "paper")


@dataclass(frozen=True, slots=True)
class Options:
    """How stages are converted."""

    gamma: float = 0.5
    """γ, the fraction of the channels that bypass the blocks, 0 < γ < 1."""
    fusion: str = "csp"
    """The transitions, as in Fig. 3 of the paper: *csp* has both, *first* only the one after the concatenation, *last*
    only the one before it."""
    recipe: str = "keep"
    """The treatment of a residual stage's first block, which changes width or resolution: *keep* leaves it as it
    is; with *paper* a strided 3×3 convolution and one more block inside the stage replace it."""
    split: str = ""
    """*slice* divides the channels; *conv* makes both parts by 1×1 convolutions. Default: *slice*, for the recipe
    *paper* *conv*."""
    multiple: int = 8
    """Both parts are multiples of this number where the width allows it; 1 keeps γ exact."""

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, Real):
            raise CspprofError(f"gamma={self.gamma!r} is not a number", "Write a number between 0 and 1: gamma=0.5")
        if not 0 < self.gamma < 1:
            raise CspprofError(
                f"gamma={self.gamma:g} leaves one side of the split empty",
                "γ is the fraction of the channels that bypass the blocks, 0 < γ < 1: --gamma 0.5",
            )
        choices = {"fusion": FUSIONS, "recipe": RECIPES, "split": ("", *SPLITS)}
        for name, values in choices.items():
            if getattr(self, name) not in values:
                known = ", ".join(filter(None, values))
                raise CspprofError(f"{name}={getattr(self, name)!r} is unknown", f"Choose one of: {known}")
        if self.recipe == "paper" and self.split == "slice":
            raise CspprofError(
                "the recipe of the paper widens the maps, so it splits them by convolutions", "Leave --split out."
            )
        if not isinstance(self.multiple, int) or self.multiple < 1:
            raise CspprofError(f"cannot round to multiples of {self.multiple}", "Give at least 1: --round 8")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The widths of one CSP stage, and the new shapes of the weights inside its blocks."""

    stage: Stage
    options: Options
    bypass: int
    main: int
    c_blocks: int
    """The channels of the blocks' output."""
    c_transition: int
    """The channels behind the transition of the blocks."""
    c_out: int
    shapes: dict[int, tuple[int, ...]]
    """By storage of the record: the new shapes of parameters and buffers."""
    numbers: dict[str, dict[int, int]]
    """By module: the numbers of channels that change, and what they become."""

    @property
    def replaces_first(self) -> bool:
        """Whether the first block becomes a part of the stage."""
        return self.options.recipe == "paper" and self.stage.first is not None

    @property
    def split_by_convolutions(self) -> bool:
        return (self.options.split or ("conv" if self.options.recipe == "paper" else "slice")) == "conv"

    @property
    def input(self) -> tuple[int, ...]:
        """The shape that goes into the CSP stage."""
        first = self.stage.first
        return first.input if self.replaces_first and first is not None else self.stage.input

    @property
    def gamma(self) -> float:
        """The fraction of the channels that bypasses the blocks: that of the options, or the nearest possible one."""
        return self.bypass / (self.bypass + self.main)

    @property
    def joined(self) -> int:
        """The channels of the concatenation."""
        return self.bypass + self.c_transition


def plan(record: Record, stage: Stage, options: Options) -> StagePlan:
    """The widths for one stage. If γ gives no whole number of channels to a layer, the nearest width that does is used.

    Raises CouplingError, with the reason at γ and a value that works, if no width is possible.
    """
    width = stage.input[1]
    if width < 2:
        raise CouplingError("its map has 1 channel, which cannot be split")
    wanted = bypass_channels(width, options.gamma, options.multiple if width > 2 * options.multiple else 1)
    order = sorted(range(1, width), key=lambda b: (abs(b - wanted), -b))
    coarse = options.multiple > 1 and width % options.multiple == 0 and width > 2 * options.multiple
    failure: CouplingError | None = None
    for bypass in order:
        if coarse and bypass % options.multiple:
            continue
        try:
            return _plan_with(record, stage, options, bypass)
        except CouplingError as error:
            failure = failure or error
    assert failure is not None  # `order` is not empty
    if not coarse:
        raise CouplingError(f"{failure.message}, and no other γ is possible")
    for bypass in order:
        try:
            _plan_with(record, stage, options, bypass)
        except CouplingError:
            continue
        raise CouplingError(f"{failure.message}; γ = {bypass / width:g} is possible with --round 1")
    raise CouplingError(f"{failure.message}, and no other γ is possible")


def _plan_with(record: Record, stage: Stage, options: Options, bypass: int) -> StagePlan:
    """The widths if `bypass` channels bypass the blocks. Raises CouplingError."""
    main = stage.input[1] - bypass
    factor = Fraction(main, stage.input[1])
    shapes = stage.coupling.new_shapes(record, factor)
    numbers = stage.coupling.new_numbers(factor)
    c_blocks = stage.coupling.new_size(stage.coupling.exit, factor)
    return _with_transitions(stage, options, bypass, main, c_blocks, shapes, numbers)


def _with_transitions(
    stage: Stage,
    options: Options,
    bypass: int,
    main: int,
    c_blocks: int,
    shapes: dict[int, tuple[int, ...]],
    numbers: dict[str, dict[int, int]],
) -> StagePlan:
    plain, c_out = stage.blocks[-1].output[1], stage.output[1]
    c_transition = c_blocks
    if options.fusion == "csp":
        # A dense block is compressed as by its own transition or, if that is none, by half (DenseNet, section 3).
        half = plain > stage.input[1] and c_out >= plain
        c_transition = max(c_blocks // 2 if half else c_blocks * c_out // plain, 1)
    elif options.fusion == "last":
        c_transition = c_out - bypass
        if c_transition < 1:
            raise CouplingError(f"{bypass} bypassed channels leave none of the {c_out} output channels for the blocks")
    return StagePlan(stage, options, bypass, main, c_blocks, c_transition, c_out, shapes, numbers)
