"""The cross-stage-partial building block (CSPNet, Wang et al. 2019, section 3)."""

from __future__ import annotations

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.zoo.blocks import ConvNormAct

FUSIONS = ("csp", "first", "last", "none")
"""Positions of the 1×1 transitions. With *none* there is no split: a factory builds the plain network."""
SPLITS = ("conv", "slice")


class CrossStagePartial(nn.Module):
    """A stage in which one part of the input bypasses the blocks and the other part runs through them.

    (N, c_in, H, W) -> (N, c_out, H, W), or half as high and wide with a `down` module in front:

        x0 -> [down] -> bypass ------------------------------------ concat -> transition -> out
                     -> main -> blocks -> block transition -------^

    The four designs of the paper's Fig. 3 differ in their 1×1 transitions. Fusion *csp* has both; *first* has only the
    transition after the concatenation; *last* has only the transition before it, so the concatenation is the output
    (c_out = c_transition + bypass); the plain stage has no split. `blocks` can be residual, ResNeXt or dense.

    Two 1×1 convolutions of the same tensor split it (*conv*, in the authors' ResNe(X)t-50 and Darknet-53), or its
    channels are sliced (*slice*, in the text of the paper).

    γ is the bypassed fraction, 0 < γ < 1. For a slice it is the fraction of x0's channels, as in the paper; for
    convolutions, which may widen, it is `bypass / (bypass + main)`. Some public code calls 1 − γ `partial_ratio`.
    """

    def __init__(
        self, c_in: int, c_out: int, *, bypass: int, main: int, blocks: nn.Module, c_blocks: int,
        down: nn.Module | None = None, split_act: bool = True, act: str = "leaky", split: str = "conv",
        fusion: str = "csp", c_transition: int | None = None, pool: nn.Module | None = None,
    ) -> None:  # fmt: skip
        """`blocks` maps `main` channels to `c_blocks`, and its transition maps these to `c_transition` (default:
        `c_blocks`). `split_act` tells whether the two split convolutions have activations. `pool` ends the stage; with
        fusion *csp* it runs before the second transition, where it is cheaper."""
        super().__init__()
        check_choice(split=(split, SPLITS), fusion=(fusion, FUSIONS[:-1]))
        if min(bypass, main) < 1:
            raise CspprofError(
                f"a split into {bypass} bypassed and {main} processed channels leaves one side empty",
                "Give both at least one channel: another gamma, or a larger width.",
            )
        c_transition = c_transition or c_blocks
        self.widths = [bypass, main]
        self.down = nn.Identity() if down is None else down
        act_of_split = act if split_act else None
        self.bypass = ConvNormAct(c_in, bypass, act=act_of_split) if split == "conv" else None
        self.main = ConvNormAct(c_in, main, act=act_of_split) if split == "conv" else None
        self.blocks = blocks
        self.block_transition = nn.Identity() if fusion == "first" else ConvNormAct(c_blocks, c_transition, act=act)
        joined = bypass + (c_blocks if fusion == "first" else c_transition)
        self.transition = nn.Identity() if fusion == "last" else ConvNormAct(joined, c_out, act=act)
        self.pool = nn.Identity() if pool is None else pool
        self.pool_first = fusion == "csp" and pool is not None
        self.c_out = joined if fusion == "last" else c_out

    def forward_with_map(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The map at the resolution of this stage, for the neck of a detector, and the output."""
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
        return self.forward_with_map(x)[1]


def check_choice(**chosen: tuple[str, tuple[str, ...]]) -> None:
    """Raise CspprofError if an option has an unknown value. Each argument is the value and the allowed values:
    `split=("slice", ("conv", "slice"))`."""
    for name, (value, values) in chosen.items():
        if value not in values:
            raise CspprofError(f"{name}={value!r} is unknown", f"Choose one of: {', '.join(values)}")
