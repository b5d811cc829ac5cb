#!/usr/bin/env python3
"""Checks models.py against golden files: weights, input, output and every gradient of one network a file.

    check_golden.py DIR [--layout contiguous|channels_last|both] [--fir FORM ...] [--device cpu|cuda]

Files are safetensors with ``model.*``, ``x``, ``labels``, ``y``, ``w`` and ``grad.*`` = d sum(y w)/d *. Error is
||a - b|| / max(||b||, floor); the floor is 0 for the output and 1e-4 of the file's largest parameter-gradient
norm for gradients. Where DIR holds networks.json, the outputs of its option combinations are checked too, with
weights filled by the rule it states. Exits 1 if anything fails.
"""

import argparse
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch

import fir
import models

OUTPUT_LIMIT, GRADIENT_LIMIT = 5e-5, 1e-3
TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32}


def read_safetensors(path):
    """-> (metadata, {name: tensor})."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise ValueError(f"{path}: header of {length} bytes in a file of {len(data)}")
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        array = np.frombuffer(body[first:last], TYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    return header.get("__metadata__", {}), tensors


def error(a, b, floor=0.0):
    a, b = a.detach().double().cpu(), b.double()
    scale = max(b.norm().item(), floor)
    value = (a - b).norm().item() / scale if scale else (a - b).norm().item()
    return value if math.isfinite(value) else math.inf


def check(path, layout, device):
    meta, t = read_safetensors(path)
    config = json.loads(meta["config"])
    net = models.build(models.NetConfig.from_tables(config["data"], config["model"]))
    net.load_state_dict({k[6:]: v for k, v in t.items() if k.startswith("model.")}, strict=True)
    net = net.to(device).eval()
    x = t["x"].to(device)
    if layout == "channels_last":
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_(True)
    y = net(x, t["labels"].to(device))
    (y * t["w"].to(device)).sum().backward()
    grads = {f"grad.{k}": p.grad for k, p in net.named_parameters() if p.requires_grad}
    grads["grad.x"] = x.grad
    wanted = {k: v for k, v in t.items() if k.startswith("grad.")}
    unmatched = set(wanted) ^ set(grads)
    # A block without conditioning never uses its Dense_0.
    missing = {k for k in unmatched if not (k in grads and grads[k] is None)}
    floor = 1e-4 * max(v.norm().item() for k, v in wanted.items() if k != "grad.x")
    errors = {k: error(grads[k], v, floor) for k, v in wanted.items() if k in grads}
    worst = max(errors, key=errors.get)
    return error(y, t["y"]), errors[worst], worst, len(errors), missing


def fill_by_rule(net):
    """Weights as networks.json states them: sines of the element's index, scaled by the kind of tensor."""
    for k, (name, p) in enumerate(net.named_parameters()):
        wave = torch.sin(0.7 * torch.arange(p.numel(), dtype=torch.float64) + 0.1 + 0.3 * k)
        if p.dim() >= 2:
            fan = p.shape[0] if name.endswith(".W") else p.numel() / p.shape[0]
            wave = 1.5 / math.sqrt(fan) * wave
        elif name.endswith(".W"):
            wave = 0.8 * wave
        elif name.endswith("weight"):
            wave = 1 + 0.1 * wave
        else:
            wave = 0.1 * wave
        p.data.copy_(wave.reshape(p.shape))


def check_options(case, name, layout, device):
    """One entry of networks.json -> (error of the output, whether the parameters are as listed)."""
    config = {"scale_by_sigma": False, "name": "ddpm" if name == "ddpm" else "ncsnpp"}
    config.update(case["options"], image_size=16, centered=case["centered"])
    net = models.build(models.NetConfig.from_tables(config)).eval()
    listed = [(k, tuple(s)) for k, s in case["params"]] == [
        (k, tuple(p.shape)) for k, p in net.named_parameters()
    ]
    fill_by_rule(net)
    x = (
        torch.sin(0.05 * torch.arange(2 * 3 * 16 * 16, dtype=torch.float64) + 0.2)
        .float()
        .reshape(2, 3, 16, 16)
    )
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net, x = net.to(device).to(memory_format=memory), x.to(device).contiguous(memory_format=memory)
    with torch.no_grad():
        y = net(x, torch.tensor(case["labels"], device=device))
    return error(y.flatten(), torch.tensor(case["y"])), listed


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dir", type=Path, help="folder of golden .safetensors files")
    p.add_argument("--layout", choices=("contiguous", "channels_last", "both"), default="both")
    p.add_argument("--fir", nargs="+", choices=fir.FORMS, default=[fir.FORM])
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    files = sorted(f for s in ("ncsnpp_*", "ddpmpp_*", "ddpm_*") for f in args.dir.glob(s + ".safetensors"))
    if not files:
        sys.exit(f"{args.dir}: no ncsnpp_*, ddpmpp_* or ddpm_* .safetensors")
    layouts = ("contiguous", "channels_last") if args.layout == "both" else (args.layout,)
    failed = False
    print(f"{'file':36} {'layout':14} {'fir':10} {'output':>9} {'gradient':>9}       worst of gradients")
    for f in files:
        for form in args.fir:
            fir.FORM = form
            for layout in layouts:
                out, grad, worst, count, missing = check(f, layout, args.device)
                ok = out <= OUTPUT_LIMIT and grad <= GRADIENT_LIMIT and not missing
                failed |= not ok
                verdict = "ok  " if ok else "FAIL"
                print(
                    f"{f.stem:36} {layout:14} {form:10} {out:9.1e} {grad:9.1e} {verdict}  {worst} of {count}"
                )
                if missing:
                    print(f"    names that do not match: {sorted(missing)[:5]}")
    options = args.dir / "networks.json"
    cases = json.loads(options.read_text()) if options.exists() else {}
    for name, case in cases.items():
        if name.startswith("_"):
            continue
        for layout in layouts:
            fir.FORM = args.fir[0]
            out, listed = check_options(case, name, layout, args.device)
            ok = out <= OUTPUT_LIMIT and listed
            failed |= not ok
            note = "" if listed else "  parameters differ"
            verdict = "ok  " if ok else "FAIL"
            print(f"{'options ' + name:36} {layout:14} {args.fir[0]:10} {out:9.1e} {'-':>9} {verdict}{note}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
