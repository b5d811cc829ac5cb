"""NCSN++ / DDPM++ and the DDPM U-Net in PyTorch: the rival that the benchmarks of this folder time.

The networks are those of "Score-Based Generative Modeling through Stochastic Differential Equations"
(Song et al., ICLR 2021) with every option of the published configurations, and parameters carry the names of
the published checkpoints (``all_modules.<i>....``), so that weights can be exchanged. They are written to be as
fast as PyTorch allows, on CPU and GPU, and run on PyTorch 1.13 and later:

* layout neutral: ``channels_last`` goes through the whole network without a copy; attention works on views of
  either layout;
* q, k and v are one 1x1 convolution; SiLU of the time embedding is computed once for all blocks, whose
  projections of it are one matrix product;
* residual sums are in place on the convolution's output;
* the 1x1 shortcut of an upsampling block runs before the upsampling (both are linear and commute), its bias
  joining the following convolution's;
* FIR resampling has several equivalent forms (fir.py), the fastest being the default;
* where no fast BLAS is linked (Debian's PyTorch calls the reference BLAS), matrix products go through
  oneDNN's convolutions.
"""

import itertools
import math
from dataclasses import dataclass, field, fields
from typing import List

import torch
from torch import nn

from layers import (
    AttnBlock,
    Combine,
    Dense,
    Downsample,
    GaussianFourierProjection,
    GroupNorm,
    ResBlock,
    Resample,
    Upsample,
    activation,
    conv3x3,
    join,
    linear,
    positional_embedding,
    pp_groups,
)


@dataclass
class NetConfig:
    """Options of a network; the names are those of the ``[model]``, ``[data]`` and ``[sde]`` tables."""

    name: str = "ncsnpp"
    nf: int = 128
    ch_mult: List[int] = field(default_factory=lambda: [1, 2, 2, 2])
    num_res_blocks: int = 4
    attn_resolutions: List[int] = field(default_factory=lambda: [16])
    resblock_type: str = "biggan"
    resamp_with_conv: bool = True
    conditional: bool = True
    fir: bool = True
    fir_kernel: List[int] = field(default_factory=lambda: [1, 3, 3, 1])
    skip_rescale: bool = True
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    embedding_type: str = "fourier"
    fourier_scale: float = 16.0
    scale_by_sigma: bool = True
    init_scale: float = 0.0
    nonlinearity: str = "swish"
    dropout: float = 0.1
    image_size: int = 32
    num_channels: int = 3
    centered: bool = False
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 1000

    @classmethod
    def from_tables(cls, *tables):
        """Takes what it knows from dictionaries, later ones winning; other keys are ignored."""
        known = {f.name for f in fields(cls)}
        values = {}
        for table in tables:
            values.update({k: v for k, v in table.items() if k in known})
        return cls(**values)

    def __post_init__(self):
        choices = {
            "name": ("ncsnpp", "ddpm"),
            "resblock_type": ("biggan", "ddpm"),
            "progressive": ("none", "output_skip", "residual"),
            "progressive_input": ("none", "input_skip", "residual"),
            "progressive_combine": ("sum", "cat"),
            "embedding_type": ("fourier", "positional"),
            "nonlinearity": ("swish", "elu", "relu", "lrelu"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key}: {getattr(self, key)!r} is none of {', '.join(allowed)}")


class UNet(nn.Module):
    """Either network: one flat list all_modules, and beside it the program that runs it.

    forward(x [N,C,R,R], labels [N]): labels are the noise level sigma for the Fourier embedding, a time or
    level index for the positional one.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        c, pp = config, config.name == "ncsnpp"
        self.act = activation(c.nonlinearity)
        self.fourier = pp and c.embedding_type == "fourier"
        self.progressive = c.progressive if pp else "none"
        self.progressive_input = c.progressive_input if pp else "none"
        biggan = pp and c.resblock_type == "biggan"
        resample = Resample(c) if pp else Resample(NetConfig(fir=False))
        self.resample = resample
        self.fir = resample.fir  # registered here alone, so that its kernel follows the network's device
        temb_dim = 4 * c.nf
        levels = range(len(c.ch_mult))
        resolutions = [c.image_size // 2**i for i in levels]
        modules, self.program = [], []

        def add(step, module):
            self.program.append((step, len(modules)))
            modules.append(module)

        def block(c_in, c_out, direction=None):
            return ResBlock(c, c_in, c_out, temb_dim, resample, direction, pp)

        def attention(channels):
            return AttnBlock(channels, pp_groups(channels) if pp else 32, pp and c.skip_rescale)

        def norm(channels):
            return GroupNorm(pp_groups(channels) if pp else 32, channels)

        def mark(step):
            self.program.append((step, -1))

        def add_head(c_in, c_out, step):
            self.program.append((step, len(modules)))
            modules.extend((norm(c_in), conv3x3(c_in, c_out, c.init_scale if pp else 0.0)))

        if self.fourier:
            modules.append(GaussianFourierProjection(c.nf, c.fourier_scale))
        if c.conditional:
            modules.append(Dense(2 * c.nf if self.fourier else c.nf, temb_dim))
            modules.append(Dense(temb_dim, temb_dim))
        self.first = len(modules)
        modules.append(conv3x3(c.num_channels, c.nf))

        cur, pyramid = c.nf, c.num_channels
        skips = [cur]
        for i in levels:
            for _ in range(c.num_res_blocks):
                add("block", block(cur, c.nf * c.ch_mult[i]))
                cur = c.nf * c.ch_mult[i]
                if resolutions[i] in c.attn_resolutions:
                    add("attention", attention(cur))
                mark("push")
                skips.append(cur)
            if i == levels[-1]:
                break
            if biggan:
                add("block", block(cur, cur, "down"))
            else:
                add("apply", Downsample(resample, cur, cur, c.resamp_with_conv))
            if self.progressive_input == "input_skip":
                add("combine", Combine(pyramid, cur, c.progressive_combine))
                cur *= 2 if c.progressive_combine == "cat" else 1
            elif self.progressive_input == "residual":
                add("pyramid_down", Downsample(resample, pyramid, cur, True))
                pyramid = cur
            mark("push")
            skips.append(cur)

        add("block", block(cur, cur))
        add("attention", attention(cur))
        add("block", block(cur, cur))

        for i in reversed(levels):
            for _ in range(c.num_res_blocks + 1):
                add("cat_block", block(cur + skips.pop(), c.nf * c.ch_mult[i]))
                cur = c.nf * c.ch_mult[i]
            if resolutions[i] in c.attn_resolutions:
                add("attention", attention(cur))
            lowest = i == levels[-1]
            if self.progressive == "output_skip":
                add_head(cur, c.num_channels, "skip_first" if lowest else "skip_up")
            elif self.progressive == "residual":
                if lowest:
                    add_head(cur, cur, "skip_first")
                else:
                    add("pyramid_up", Upsample(resample, pyramid, cur, True))
                pyramid = cur
            if i > 0:
                if biggan:
                    add("block", block(cur, cur, "up"))
                else:
                    add("apply", Upsample(resample, cur, cur, c.resamp_with_conv))
        assert not skips
        if self.progressive != "output_skip":
            add_head(cur, c.num_channels, "head")

        self.all_modules = nn.ModuleList(modules)
        log_min, log_max = math.log(c.sigma_min), math.log(c.sigma_max)
        levels = torch.linspace(log_max, log_min, c.num_scales, dtype=torch.float64)
        self.register_buffer("sigmas", torch.exp(levels))

    def embed(self, labels):
        if not self.config.conditional:
            return None
        if self.fourier:
            e = self.all_modules[0](torch.log(labels))
        else:
            e = positional_embedding(labels, self.config.nf)
        e = self.all_modules[self.first - 2](e)
        # Every block wants a projection of act(temb) and nothing else uses it: one product for all of them.
        e = self.act(self.all_modules[self.first - 1](self.act(e)))
        dense = [m.Dense_0 for m in self.all_modules if isinstance(m, ResBlock)]
        y = linear(e, torch.cat([d.weight for d in dense]), torch.cat([d.bias for d in dense]))
        return y.split([d.out_features for d in dense], 1)

    def forward(self, x, labels):
        c, rescale = self.config, self.config.skip_rescale
        temb = self.embed(labels)
        temb = iter(temb) if temb is not None else itertools.repeat(None)
        if not c.centered:
            x = 2 * x - 1
        pyramid = x
        h = self.all_modules[self.first](x)
        stack = [h]
        for step, index in self.program:
            m = self.all_modules[index] if index >= 0 else None
            if step == "block":
                h = m(h, next(temb))
            elif step == "cat_block":
                h = m(torch.cat((h, stack.pop()), 1), next(temb))
            elif step == "push":
                stack.append(h)
            elif step in ("attention", "apply"):
                h = m(h)
            elif step == "combine":
                pyramid = self.resample.down(pyramid)
                h = m(pyramid, h)
            elif step == "pyramid_down":
                h = pyramid = join(h, m(pyramid), rescale)
            elif step == "pyramid_up":
                h = pyramid = join(h, m(pyramid), rescale)
            else:
                y = self.all_modules[index + 1](self.act(m(h)))
                if step == "skip_first":
                    pyramid = y
                elif step == "skip_up":
                    pyramid = y.add_(self.resample.up(pyramid))
                else:
                    h = y
        y = pyramid if self.progressive == "output_skip" else h
        if c.scale_by_sigma:
            sigma = labels if self.fourier else self.sigmas[labels.long()]
            y = y / sigma.to(torch.float32)[:, None, None, None]
        return y


def build(config, seed=None):
    """The network of a NetConfig, its weights drawn from the published initialisation."""
    if seed is not None:
        torch.manual_seed(seed)
    return UNet(config)
