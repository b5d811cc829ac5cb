"""FIR resampling by 2, zero outside the image, in several equivalent forms.

With the kernel (1,3,3,1), per axis:
    down  y[j] = (x[2j-1] + 3 x[2j] + 3 x[2j+1] + x[2j+2]) / 8
    up    y[2j] = (x[j-1] + 3 x[j]) / 4,  y[2j+1] = (3 x[j] + x[j+1]) / 4
"""

import torch
import torch.nn.functional as F
from torch import nn

# How FIR resampling is evaluated. 'adjoint': depthwise convolutions, the upsampling being the adjoint of the
# downsampling; 'depthwise': depthwise convolution and transposed convolution; 'separable': the same axis by
# axis; 'slices': sums of strided slices; 'pooling': three 2x2 means, bilinear interpolation.
# Forward and backward of [4,128,32,32] in channels_last, ms of CPU time (PyTorch 1.13; 2.11), down and up:
# adjoint 0.25 and 0.3; depthwise 0.25 and 25 (0.35 and 2.4); separable 0.32 and 24 (0.43 and 2.4);
# slices 0.65 and 4.3 (0.62 and 3.7); pooling 1.6 and 21 (1.4 and 16).
FORM = "adjoint"
FORMS = ("adjoint", "depthwise", "separable", "slices", "pooling")


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class Fir(nn.Module):
    """The kernel and its operators."""

    def __init__(self, kernel):
        super().__init__()
        k = torch.tensor(kernel, dtype=torch.float64)
        self.register_buffer("kernel", (k / k.sum()).float(), persistent=False)
        self.taps = len(kernel)
        self.standard = list(kernel) == [1, 3, 3, 1]

    def weight(self, x, gain, axis=None):
        """Depthwise weights, flipped since conv2d correlates; per-axis gain."""
        k = self.kernel.to(x.dtype).flip(0) * gain
        w = {None: torch.outer(k, k), "h": k[:, None], "w": k[None, :]}[axis]
        return w.expand(x.shape[1], 1, *w.shape)

    def filter(self, x, pad, gain=1.0, stride=1):
        p0, p1 = pad
        if p0 != p1:
            x, p0 = F.pad(x, (p0, p1, p0, p1)), 0
        return F.conv2d(x, self.weight(x, gain), stride=stride, padding=p0, groups=x.shape[1])

    def down(self, x):
        if self.standard and FORM == "slices":
            return _FirDown.apply(x) if torch.is_grad_enabled() else fir_down_slices(x)
        if self.standard and FORM == "pooling":
            return fir_down_pooling(x)
        if self.standard and FORM == "separable":
            x = F.conv2d(x, self.weight(x, 1.0, "h"), stride=(2, 1), padding=(1, 0), groups=x.shape[1])
            return F.conv2d(x, self.weight(x, 1.0, "w"), stride=(1, 2), padding=(0, 1), groups=x.shape[1])
        p = self.taps - 2
        return self.filter(x, ((p + 1) // 2, p // 2), stride=2)

    def up(self, x):
        if self.standard and FORM == "slices":
            return _FirUp.apply(x) if torch.is_grad_enabled() else fir_up_slices(x)
        if self.standard and FORM == "pooling":
            return fir_up_bilinear(x)
        if self.standard and FORM == "adjoint" and x.device.type == "cpu":
            w = self.weight(x, 2.0)
            return _FirUpAdjoint.apply(x, w) if torch.is_grad_enabled() else _adjoint(x, w)
        c = x.shape[1]
        # conv_transpose2d is the adjoint of a correlation, that is a convolution: undo weight()'s flip.
        if self.standard and FORM == "separable":
            x = F.conv_transpose2d(x, self.weight(x, 2.0, "w"), stride=(1, 2), padding=(0, 1), groups=c)
            return F.conv_transpose2d(x, self.weight(x, 2.0, "h"), stride=(2, 1), padding=(1, 0), groups=c)
        pad0 = (self.taps - 1) // 2 + 1
        y = F.conv_transpose2d(
            x, self.weight(x, 2.0).flip(2, 3), stride=2, padding=self.taps - 1 - pad0, groups=c
        )
        return y[:, :, : 2 * x.shape[2], : 2 * x.shape[3]] if self.taps % 2 else y

    def conv_down(self, x, weight, bias):
        """Filter, then a 3x3 convolution of stride 2."""
        p = self.taps
        return F.conv2d(self.filter(x, ((p + 1) // 2, p // 2)), weight, bias, stride=2)

    def up_conv(self, x, weight, bias):
        """Zero insertion, full 3x3 convolution, then the filter."""
        p = self.taps - 4
        y = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
        y = self.filter(y, ((p + 1) // 2 + 1, p // 2 + 1), 2.0)
        return y + bias[:, None, None]


def _adjoint(x, weight):
    size = (x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    return torch.nn.grad.conv2d_input(size, weight, x, stride=2, padding=1, groups=x.shape[1])


class _FirUpAdjoint(torch.autograd.Function):
    """Upsampling as the backward pass of the downsampling convolution; weight: its depthwise kernel."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.weight = weight
        return _adjoint(x, weight)

    @staticmethod
    def backward(ctx, grad):
        return F.conv2d(grad, ctx.weight, stride=2, padding=1, groups=grad.shape[1]), None


def _down_axis(x, dim):
    n = x.shape[dim] // 2
    pair = x.unflatten(dim, (n, 2))
    even, odd = pair.select(dim + 1, 0), pair.select(dim + 1, 1)
    y = (even + odd).mul_(3.0)
    y.narrow(dim, 1, n - 1).add_(odd.narrow(dim, 0, n - 1))
    y.narrow(dim, 0, n - 1).add_(even.narrow(dim, 1, n - 1))
    return y


def _up_axis(x, dim):
    n = x.shape[dim]
    centre = x * 3.0
    y = torch.stack((centre, centre), dim + 1)
    y.select(dim + 1, 0).narrow(dim, 1, n - 1).add_(x.narrow(dim, 0, n - 1))
    y.select(dim + 1, 1).narrow(dim, 0, n - 1).add_(x.narrow(dim, 1, n - 1))
    return y.flatten(dim, dim + 1)


def _on_memory_order(op, x, scale):
    """Applies op along both image axes, addressing them in x's own memory order."""
    if is_channels_last(x):
        y = op(op(x.permute(0, 2, 3, 1), 1), 2).mul_(scale)
        return y.permute(0, 3, 1, 2)
    return op(op(x, 2), 3).mul_(scale)


def fir_down_slices(x):
    return _on_memory_order(_down_axis, x, 1 / 64)


def fir_up_slices(x):
    return _on_memory_order(_up_axis, x, 1 / 16)


class _FirDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return fir_down_slices(x)

    @staticmethod
    def backward(ctx, grad):
        return _on_memory_order(_up_axis, grad, 1 / 64)


class _FirUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return fir_up_slices(x)

    @staticmethod
    def backward(ctx, grad):
        return _on_memory_order(_down_axis, grad, 1 / 16)


def fir_down_pooling(x):
    """(1,3,3,1) = (1,1)*(1,1)*(1,1): three 2x2 means."""
    return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 2, 1), 2, 2)


def fir_up_bilinear(x):
    """Bilinear interpolation of the image in a frame of zeros."""
    y = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear", align_corners=False)
    return y[:, :, 2:-2, 2:-2]
