"""The cross-stage-partial building block (CSPNet, Wang et al. 2019, section 3)."""

from __future__ import annotations

import torch
from torch import nn

from cspprof.errors import CspprofError
from cspprof.zoo.blocks import ConvNormAct


class CrossStagePartial(nn.Module):
    """A stage whose input goes two ways: part of it bypasses the blocks, the rest runs through them.

    (N, c_in, H, W) -> (N, c_out, H, W), or half as high and wide with a `down` module in front:

        x0 -> [down] -> bypass ------------------------------------ concat -> transition -> out
                     -> main -> blocks -> block transition -------^

    Both parts come from the same tensor by a 1×1 convolution each, the form of the authors' ResNe(X)t-50 and
    Darknet-53 (fusion *csp*: a transition before the concatenation and one after it). The block is indifferent to
    what `blocks` is: residual, ResNeXt or dense blocks.

    γ is the bypassed fraction. The paper takes it of x0's channels, which a slice would divide; where convolutions
    split and may widen, as here, it is `bypass / (bypass + main)`. Some public code calls the other fraction, 1 - γ,
    `partial_ratio`.
    """

    def __init__(
        self, c_in: int, c_out: int, *, bypass: int, main: int, blocks: nn.Module, c_blocks: int,
        down: nn.Module | None = None, split_act: bool = True,
    ) -> None:  # fmt: skip
        """`blocks` maps `main` channels to `c_blocks`; `split_act` is whether the two split convolutions activate."""
        super().__init__()
        if min(bypass, main) < 1:
            raise CspprofError(
                f"a split into {bypass} bypassed and {main} processed channels leaves one side empty",
                "Give both at least one channel: 0 < γ < 1.",
            )
        self.down = nn.Identity() if down is None else down
        self.bypass = ConvNormAct(c_in, bypass, act=split_act)
        self.main = ConvNormAct(c_in, main, act=split_act)
        self.blocks = blocks
        self.block_transition = ConvNormAct(c_blocks, c_blocks)
        self.transition = ConvNormAct(c_blocks + bypass, c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        bypass = self.bypass(x)
        dense = self.block_transition(self.blocks(self.main(x)))
        y: torch.Tensor = self.transition(torch.cat([dense, bypass], dim=1))
        return y
