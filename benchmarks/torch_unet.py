"""The U-Net of `phdme_jax.diffusion.unet` for fields on a plane, written in PyTorch, as a peer for timing.

Layer by layer the same network, with parameters taken over, so that outputs can be compared before times are.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Linear):
    """Dense layer that reads its parameters from those of the other network."""

    def take(self, params: dict[str, Any]) -> None:
        (inner,) = params.values()
        self.weight.data = torch.tensor(np.asarray(inner["kernel"]).T.copy())
        if "bias" in inner:
            self.bias.data = torch.tensor(np.asarray(inner["bias"]))


class Convolution(nn.Conv2d):
    """Convolution, channels first."""

    def take(self, inner: dict[str, Any]) -> None:
        self.weight.data = torch.tensor(np.asarray(inner["kernel"]).transpose(3, 2, 0, 1).copy())
        self.bias.data = torch.tensor(np.asarray(inner["bias"]))


class Norm(nn.GroupNorm):
    """Group normalisation."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups, channels, eps=1e-6)

    def take(self, params: dict[str, Any]) -> None:
        (inner,) = params.values()
        self.weight.data = torch.tensor(np.asarray(inner["scale"]))
        self.bias.data = torch.tensor(np.asarray(inner["bias"]))


class Block(nn.Module):
    """Residual block with modulation by the embedding."""

    def __init__(self, before: int, after: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([Norm(before, groups), Norm(after, groups)])
        widths = ((before, after), (after, after))
        self.convolutions = nn.ModuleList([Convolution(*pair, 3, padding=1) for pair in widths])
        self.modulation = Linear(embedding, 2 * after)
        self.shortcut = Linear(before, after) if before != after else None

    def forward(self, inputs: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        hidden = self.convolutions[0](F.silu(self.norms[0](inputs)))
        scale, shift = self.modulation(F.silu(embedding))[..., None, None].chunk(2, dim=1)
        hidden = self.norms[1](hidden) * (1 + scale) + shift
        hidden = self.convolutions[1](F.silu(hidden))
        if self.shortcut is not None:
            inputs = F.conv2d(inputs, self.shortcut.weight[..., None, None], self.shortcut.bias)
        return inputs + hidden

    def take(self, params: dict[str, Any]) -> None:
        for index in (0, 1):
            self.norms[index].take(params[f"_Norm_{index}"])
            (inner,) = params[f"_Convolution_{index}"].values()
            self.convolutions[index].take(inner)
        self.modulation.take(params["Modulation_0"]["Linear_0"])
        if self.shortcut is not None:
            self.shortcut.take(params["Linear_0"])


class Attention(nn.Module):
    """Attention over all places of the coarsest level."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, Norm(width, groups)
        self.mix, self.out = Linear(width, 3 * width), Linear(width, width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        batch, width, rows, columns = inputs.shape
        tokens = self.norm(inputs).flatten(2).transpose(1, 2)
        parts = self.mix(tokens).reshape(batch, -1, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, -1, width))
        return inputs + mixed.transpose(1, 2).reshape(batch, width, rows, columns)

    def take(self, params: dict[str, Any]) -> None:
        self.norm.take(params["_Norm_0"])
        self.mix.take(params["Linear_0"])
        self.out.take(params["Linear_1"])


class UNet(nn.Module):
    """The whole network; fields channels first, (batch, field, x, y), noise levels (batch,)."""

    def __init__(
        self,
        fields: int,
        channels: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        embedding: int,
        heads: int,
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.size, self.levels, self.num_blocks = embedding, len(multipliers), num_blocks
        self.embed = nn.ModuleList([Linear(embedding, embedding), Linear(embedding, embedding)])
        self.first = Convolution(fields + 2, channels, 3, padding=1)
        self.halves, self.down, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips = channels, []
        for level, multiplier in enumerate(multipliers):
            after = channels * multiplier
            if level:
                self.halves.append(Convolution(width, after, 2, stride=2))
                width = after
            for _ in range(num_blocks):
                self.down.append(Block(width, after, embedding, groups))
                skips.append(after)
                width = after
        self.middle, self.attention = Block(width, width, embedding, groups), Attention(width, heads, groups)
        for multiplier in reversed(multipliers):
            after = channels * multiplier
            for _ in range(num_blocks):
                self.up.append(Block(width + skips.pop(), after, embedding, groups))
                width = after
        self.norm, self.last = Norm(width, groups), Convolution(width, fields, 3, padding=1)

    def forward(self, noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        octaves = torch.linspace(-1.0, 6.0, self.size // 2, dtype=noisy.dtype)
        angles = level[:, None] * 2.0**octaves
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        embedding = self.embed[1](F.silu(self.embed[0](waves)))
        lines = [torch.linspace(-1.0, 1.0, size, dtype=noisy.dtype) for size in noisy.shape[2:]]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(noisy.shape[0], -1, -1, -1)
        hidden = self.first(torch.cat([noisy, places], dim=1))
        skips, down, up = [], iter(self.down), iter(self.up)
        for step in range(self.levels):
            if step:
                hidden = self.halves[step - 1](hidden)
            for _ in range(self.num_blocks):
                hidden = next(down)(hidden, embedding)
                skips.append(hidden)
        hidden = self.attention(self.middle(hidden, embedding))
        for step in reversed(range(self.levels)):
            for _ in range(self.num_blocks):
                hidden = next(up)(torch.cat([hidden, skips.pop()], dim=1), embedding)
            if step:
                hidden = F.interpolate(hidden, scale_factor=2, mode="nearest")
        return self.last(F.silu(self.norm(hidden)))

    def take(self, params: dict[str, Any]) -> None:
        """Take the parameters of the other network over."""
        trunk = params["trunk"]
        for index, layer in enumerate(self.embed):
            layer.take(trunk["NoiseEmbedding_0"][f"Linear_{index}"])
        for layer, name in ((self.first, "_Convolution_0"), (self.last, "_Convolution_1")):
            (inner,) = trunk[name].values()
            layer.take(inner)
        for index, layer in enumerate(self.halves):
            (inner,) = trunk[f"_Halve_{index}"].values()
            layer.take(inner)
        for index, block in enumerate([*self.down, self.middle, *self.up]):
            block.take(trunk[f"_Block_{index}"])
        self.attention.take(trunk["_Attention_0"])
        self.norm.take(trunk["_Norm_0"])
