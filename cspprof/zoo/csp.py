"""The cross-stage-partial building block (CSPNet, Wang et al. 2019, section 3)."""

from __future__ import annotations

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.zoo.blocks import ConvNormAct

FUSIONS = ("csp", "first", "last", "none")
"""Where the 1×1 transitions are; with *none* there is no split, and a factory builds the plain network."""
SPLITS = ("conv", "slice")


class CrossStagePartial(nn.Module):
    """A stage whose input goes two ways: part of it bypasses the blocks, the rest runs through them.

    (N, c_in, H, W) -> (N, c_out, H, W), or half as high and wide with a `down` module in front:

        x0 -> [down] -> bypass ------------------------------------ concat -> transition -> out
                     -> main -> blocks -> block transition -------^

    The four forms of the paper's Fig. 3 differ in their 1×1 transitions. Fusion *csp* has both; *first* only the one
    after the concatenation; *last* only the one before it, so that the concatenation is the output
    (c_out = c_transition + bypass); without any split it is the plain stage. The block is indifferent to what
    `blocks` is: residual, ResNeXt or dense.

    The split is by two 1×1 convolutions of the same tensor (*conv*, the form of the authors' ResNe(X)t-50 and
    Darknet-53) or by slicing its channels (*slice*, the form of the paper's text).

    γ is the bypassed fraction, 0 < γ < 1. The paper takes it of x0's channels, which a slice divides; where
    convolutions split and may widen, it is `bypass / (bypass + main)`. Some public code calls the other fraction,
    1 − γ, `partial_ratio`.
    """

    def __init__(
        self, c_in: int, c_out: int, *, bypass: int, main: int, blocks: nn.Module, c_blocks: int,
        down: nn.Module | None = None, split_act: bool = True, act: str = "leaky", split: str = "conv",
        fusion: str = "csp", c_transition: int | None = None, pool: nn.Module | None = None,
    ) -> None:  # fmt: skip
        """`blocks` maps `main` channels to `c_blocks`, its transition these to `c_transition` (the same number unless
        given); `split_act` is whether the two split convolutions activate. A `pool` that ends the stage comes right
        before the second transition of *csp*, where it is cheaper, and last in the other forms."""
        super().__init__()
        check_choice(split=(split, SPLITS), fusion=(fusion, FUSIONS[:-1]))
        if min(bypass, main) < 1:
            raise CspprofError(
                f"a split into {bypass} bypassed and {main} processed channels leaves one side empty",
                "Give both at least one channel: 0 < γ < 1.",
            )
        between = c_transition or c_blocks
        self.widths = [bypass, main]
        self.down = nn.Identity() if down is None else down
        split_by = act if split_act else None
        self.bypass = ConvNormAct(c_in, bypass, act=split_by) if split == "conv" else None
        self.main = ConvNormAct(c_in, main, act=split_by) if split == "conv" else None
        self.blocks = blocks
        self.block_transition = nn.Identity() if fusion == "first" else ConvNormAct(c_blocks, between, act=act)
        joined = bypass + (c_blocks if fusion == "first" else between)
        self.transition = nn.Identity() if fusion == "last" else ConvNormAct(joined, c_out, act=act)
        self.pool = nn.Identity() if pool is None else pool
        self.pool_first = fusion == "csp" and pool is not None
        self.c_out = joined if fusion == "last" else c_out

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The map at this stage's resolution, as a detector's neck takes it, and the output."""
        x = self.down(x)
        if self.bypass is None or self.main is None:
            bypass, main = torch.split(x, self.widths, 1)
        else:
            bypass, main = self.bypass(x), self.main(x)
        dense = self.block_transition(self.blocks(main))
        joined = torch.cat([dense, bypass], dim=1)
        if self.pool_first:
            return joined, self.transition(self.pool(joined))
        y: torch.Tensor = self.transition(joined)
        return y, self.pool(y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(x)[1]


def bypassed(channels: int, gamma: float, multiple: int = 1) -> int:
    """How many of `channels` bypass: γ of them, to the nearest `multiple`, at least one and not all.

    Raises CspprofError unless 0 < γ < 1.
    """
    if not isinstance(gamma, (int, float)) or not 0 < gamma < 1:
        raise CspprofError(f"gamma={gamma!r} is not a fraction", "γ is the bypassed fraction, 0 < γ < 1: gamma=0.5")
    return min(max(round(gamma * channels / multiple) * multiple, multiple), channels - multiple)


def check_choice(**chosen: tuple[str, tuple[str, ...]]) -> None:
    """Raise CspprofError for an option that is none of its values: `split=("slice", ("conv", "slice"))`."""
    for name, (value, values) in chosen.items():
        if value not in values:
            raise CspprofError(f"{name}={value!r}", f"There are: {', '.join(values)}")
