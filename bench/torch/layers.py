"""Layers and blocks of the networks in models.py."""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from fir import Fir, is_channels_last

# Matrix products through oneDNN's convolution on the CPU: pays where PyTorch has no MKL.
ONEDNN_MATMUL = not torch.backends.mkl.is_available()
# F.scaled_dot_product_attention exists from PyTorch 2.0 on.
USE_SDPA = hasattr(F, "scaled_dot_product_attention")
# Dropout drawn 16 bits at a time on the CPU instead of F.dropout's one serial Bernoulli draw an element:
# 2.5 times as fast.
FAST_DROPOUT = True
# PyTorch 1.13's own group norm is slow backwards in channels_last on the CPU (9 of the 10.8 ms of a
# [4,256,32,32] norm and SiLU); written out as below it takes 4.9 ms. Version 2.11's takes 2.9 ms.
OWN_GROUP_NORM = int(torch.__version__.split(".")[0]) < 2


def default_init(tensor, scale=1.0):
    """Uniform variance scaling over the mean of fan-in and fan-out; scale 0 stands for 1e-10."""
    receptive = tensor[0][0].numel() if tensor.dim() > 2 else 1
    fan = 0.5 * (tensor.shape[0] + tensor.shape[1]) * receptive
    bound = math.sqrt(3.0 * (scale or 1e-10) / fan)
    with torch.no_grad():
        return tensor.uniform_(-bound, bound)


def activation(name):
    return {
        "swish": F.silu,
        "elu": F.elu,
        "relu": F.relu,
        "lrelu": lambda x: F.leaky_relu(x, 0.2),
    }[name]


class Conv(nn.Conv2d):
    def __init__(self, c_in, c_out, kernel, scale=1.0, **kwargs):
        super().__init__(c_in, c_out, kernel, **kwargs)
        default_init(self.weight, scale)
        nn.init.zeros_(self.bias)


def conv3x3(c_in, c_out, scale=1.0):
    return Conv(c_in, c_out, 3, scale, padding=1)


def conv1x1(c_in, c_out, scale=1.0):
    return Conv(c_in, c_out, 1, scale)


def linear(x, weight, bias):
    if ONEDNN_MATMUL and not x.is_cuda:
        return F.conv2d(x[:, :, None, None], weight[:, :, None, None], bias)[:, :, 0, 0]
    return F.linear(x, weight, bias)


class Dense(nn.Linear):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        default_init(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """Group norm as sums over pixels and one multiply-add a pass, vectorised along the channels."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        n, c, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n, height * width, c)
        count = c // groups * height * width
        s1 = pixels.sum(1, dtype=torch.float32)
        s2 = (pixels * pixels).sum(1, dtype=torch.float32)
        mean = s1.view(n, groups, -1).sum(2, keepdim=True) / count
        variance = s2.view(n, groups, -1).sum(2, keepdim=True) / count - mean * mean
        rstd = torch.rsqrt(variance.clamp_(min=0.0) + eps)
        a = rstd * weight.view(groups, -1)
        b = (bias.view(groups, -1) - a * mean).view(n, 1, c).to(x.dtype)
        a = a.view(n, 1, c).to(x.dtype)
        ctx.save_for_backward(pixels, a, mean, rstd, weight)
        return torch.addcmul(b, pixels, a).view(n, height, width, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad):
        pixels, a, mean, rstd, weight = ctx.saved_tensors
        (n, _, height, width), groups = grad.shape, mean.shape[1]
        c = pixels.shape[2]
        count = c // groups * height * width
        g = grad.permute(0, 2, 3, 1).reshape(pixels.shape)
        db = g.sum(1, dtype=torch.float32).view(n, groups, -1)
        ds = (g * pixels).sum(1, dtype=torch.float32).view(n, groups, -1)
        w = weight.view(groups, -1)
        sum_db = (db * w).sum(2, keepdim=True)
        sum_ds = (ds * w).sum(2, keepdim=True)
        slope = (sum_db * mean - sum_ds) * rstd**3 / count
        offset = -slope * mean - sum_db * rstd / count
        slope, offset = (
            t.expand(n, groups, c // groups).reshape(n, 1, c).to(g.dtype) for t in (slope, offset)
        )
        dx = torch.addcmul(offset, pixels, slope).addcmul_(g, a)
        dweight = ((ds - db * mean) * rstd).sum(0).view(c)
        return dx.view(n, height, width, c).permute(0, 3, 1, 2), dweight, db.sum(0).view(c), None, None


class GroupNorm(nn.GroupNorm):
    """eps 1e-6. Under autocast it stays in the input's type: the kernels accumulate in float32 anyway."""

    def __init__(self, groups, channels):
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x):
        if OWN_GROUP_NORM and torch.is_grad_enabled() and not x.is_cuda and is_channels_last(x):
            return _ChannelsLastGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        if x.dtype == self.weight.dtype:
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def pp_groups(channels):
    return min(channels // 4, 32)


class NIN(nn.Module):
    """A 1x1 convolution whose weight is stored as W (in, out)."""

    def __init__(self, c_in, c_out, scale=0.1):
        super().__init__()
        self.W = nn.Parameter(default_init(torch.empty(c_in, c_out), scale))
        self.b = nn.Parameter(torch.zeros(c_out))

    def forward(self, x):
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


class _SixteenBitDropout(torch.autograd.Function):
    """Dropout whose mask comes from 16-bit slices of 64-bit draws; the rate is rounded to 1/65536."""

    @staticmethod
    def forward(ctx, x, rate):
        threshold = round(rate * 65536) - 32768
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        mask = (bits.view(torch.int16)[: x.numel()] >= threshold).to(x.dtype).mul_(1.0 / (1.0 - rate))
        # The mask's elements are independent, so they may follow x's memory order.
        mask = torch.as_strided(mask, x.shape, x.stride())
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        return grad * mask, None


class Dropout(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        if FAST_DROPOUT and x.device.type == "cpu" and dense:
            return _SixteenBitDropout.apply(x, self.rate)
        return F.dropout(x, self.rate, True)


def naive_down(x):
    return F.avg_pool2d(x, 2)


def naive_up(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Resample:
    """Parameter-free resampling by 2: FIR, or nearest neighbour and 2x2 mean."""

    def __init__(self, config):
        self.fir = Fir(config.fir_kernel) if config.fir else None
        self.down = self.fir.down if self.fir else naive_down
        self.up = self.fir.up if self.fir else naive_up


class Downsample(nn.Module):
    def __init__(self, resample, c_in, c_out, with_conv):
        super().__init__()
        self.resample = resample
        if with_conv and resample.fir:
            self.Conv2d_0 = Conv(c_in, c_out, 3)
        elif with_conv:
            self.Conv_0 = Conv(c_in, c_out, 3, stride=2)

    def forward(self, x):
        if hasattr(self, "Conv2d_0"):
            return self.resample.fir.conv_down(x, self.Conv2d_0.weight, self.Conv2d_0.bias)
        if hasattr(self, "Conv_0"):
            return self.Conv_0(F.pad(x, (0, 1, 0, 1)))
        return self.resample.down(x)


class Upsample(nn.Module):
    def __init__(self, resample, c_in, c_out, with_conv):
        super().__init__()
        self.resample = resample
        if with_conv and resample.fir:
            self.Conv2d_0 = Conv(c_in, c_out, 3)
        elif with_conv:
            self.Conv_0 = conv3x3(c_in, c_out)

    def forward(self, x):
        if hasattr(self, "Conv2d_0"):
            return self.resample.fir.up_conv(x, self.Conv2d_0.weight, self.Conv2d_0.bias)
        if hasattr(self, "Conv_0"):
            return self.Conv_0(naive_up(x))
        return self.resample.up(x)


def join(x, h, rescale):
    """(x + h) / sqrt 2 or x + h, in place on h, which is always a convolution's fresh output."""
    h = h.add_(x) if h.dtype == x.dtype else h + x
    return h.mul_(math.sqrt(0.5)) if rescale else h


class ResBlock(nn.Module):
    """Residual block of the BigGAN kind (resampling inside, 1x1 shortcut) or the DDPM kind (NIN shortcut)."""

    def __init__(self, config, c_in, c_out, temb_dim, resample=None, direction=None, pp=True):
        super().__init__()
        self.act = activation(config.nonlinearity)
        self.rescale = pp and config.skip_rescale
        self.resample, self.direction = resample, direction
        groups = pp_groups if pp else lambda c: 32
        self.GroupNorm_0 = GroupNorm(groups(c_in), c_in)
        self.Conv_0 = conv3x3(c_in, c_out)
        self.Dense_0 = Dense(temb_dim, c_out)
        self.GroupNorm_1 = GroupNorm(groups(c_out), c_out)
        self.Dropout_0 = Dropout(config.dropout)
        self.Conv_1 = conv3x3(c_out, c_out, config.init_scale if pp else 0.0)
        self.Conv_2 = self.NIN_0 = None
        if pp and config.resblock_type == "biggan":
            if c_in != c_out or direction:
                self.Conv_2 = conv1x1(c_in, c_out)
        elif c_in != c_out:
            self.NIN_0 = NIN(c_in, c_out)

    def forward(self, x, temb: Optional[torch.Tensor]):
        """temb: this block's projection of the time embedding [N, c_out], or None."""
        h = self.act(self.GroupNorm_0(x))
        bias = self.Conv_1.bias
        if self.direction == "up":
            h = self.resample.up(h)
            x = self.resample.up(F.conv2d(x, self.Conv_2.weight))
            bias = bias + self.Conv_2.bias
        elif self.direction == "down":
            h, x = self.resample.down(h), self.resample.down(x)
        h = self.Conv_0(h)
        if temb is not None:
            h = h.add_(temb[:, :, None, None])
        h = self.Dropout_0(self.act(self.GroupNorm_1(h)))
        h = F.conv2d(h, self.Conv_1.weight, bias, padding=1)
        if self.NIN_0 is not None:
            x = self.NIN_0(x)
        elif self.Conv_2 is not None and self.direction != "up":
            x = self.Conv_2(x)
        return join(x, h, self.rescale)


def _product_by_conv(a, b_t):
    """a [P, C] times the transpose of b_t [R, C], as a 1x1 convolution in channels-last order -> [P, R]."""
    y = F.conv2d(a.t()[None, :, :, None], b_t[:, :, None, None])
    return y[0, :, :, 0].t()


class AttnBlock(nn.Module):
    """Single-head attention over all pixels."""

    def __init__(self, channels, groups, rescale):
        super().__init__()
        self.rescale = rescale
        self.GroupNorm_0 = GroupNorm(groups, channels)
        for i in range(3):
            setattr(self, f"NIN_{i}", NIN(channels, channels))
        self.NIN_3 = NIN(channels, channels, 0.0)

    def forward(self, x):
        n, c, height, width = x.shape
        w = torch.cat((self.NIN_0.W, self.NIN_1.W, self.NIN_2.W), 1).t()[:, :, None, None]
        b = torch.cat((self.NIN_0.b, self.NIN_1.b, self.NIN_2.b))
        qkv = F.conv2d(self.GroupNorm_0(x), w, b)
        if is_channels_last(qkv):
            q, k, v = qkv.permute(0, 2, 3, 1).reshape(n, height * width, 3 * c).chunk(3, 2)
            h = self.attend(q, k, v).reshape(n, height, width, c).permute(0, 3, 1, 2)
        else:
            q, k, v = (t.transpose(1, 2) for t in qkv.reshape(n, 3 * c, height * width).chunk(3, 1))
            h = self.attend(q, k, v).transpose(1, 2).reshape(n, c, height, width)
        return join(x, self.NIN_3(h), self.rescale)

    @staticmethod
    def attend(q, k, v):
        """q, k, v [N, P, C] -> [N, P, C]."""
        scale = q.shape[2] ** -0.5
        if ONEDNN_MATMUL and not q.is_cuda:
            rows = []
            for qi, ki, vi in zip(q.unbind(0), k.unbind(0), v.unbind(0)):
                a = torch.softmax(_product_by_conv(qi * scale, ki), 1)
                rows.append(_product_by_conv(a, vi.t()))
            return torch.stack(rows)
        if USE_SDPA:
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        a = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0.0, alpha=scale)
        return torch.bmm(torch.softmax(a, 2), v)


class GaussianFourierProjection(nn.Module):
    def __init__(self, nf, scale):
        super().__init__()
        self.W = nn.Parameter(torch.randn(nf) * scale, requires_grad=False)

    def forward(self, log_sigma):
        a = log_sigma[:, None] * self.W * 2 * math.pi
        return torch.cat((torch.sin(a), torch.cos(a)), 1)


def positional_embedding(labels, dim):
    half = dim // 2
    rates = torch.exp(
        torch.arange(half, dtype=torch.float32, device=labels.device) * (-math.log(10000) / (half - 1))
    )
    a = labels.to(rates.dtype)[:, None] * rates
    return F.pad(torch.cat((torch.sin(a), torch.cos(a)), 1), (0, dim % 2))


class Combine(nn.Module):
    def __init__(self, c_in, c_out, method):
        super().__init__()
        self.Conv_0 = conv1x1(c_in, c_out)
        self.method = method

    def forward(self, pyramid, h):
        p = self.Conv_0(pyramid)
        return p.add_(h) if self.method == "sum" else torch.cat((p, h), 1)
