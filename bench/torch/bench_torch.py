#!/usr/bin/env python3
"""Times PyTorch on the networks and training step that sgm runs, from the same configuration files.

    bench_torch.py --config cifar10_ncsnpp_continuous --batch 4 --mode train --steps 3 --json out.json

A training step is perturbation, forward, loss, backward, gradient clipping, warm-up, Adam and EMA on seeded
random images; a forward is the network alone without gradients. Times are the median over the steps after
warm-up; a sample is one update of the configuration's predictor and corrector. Defaults are what was fastest; the options keep the alternatives measurable.

Measured with PyTorch 1.13.1 on two shared Zen 4 cores, NCSN++ for CIFAR-10, batch 4, float32, seconds of CPU
time (all cores) a training step: channels_last 3.3, contiguous 3.4, channels_last with glibc's allocator as it
is 3.35; a forward: channels_last 0.94, contiguous 0.97, torch.jit.freeze 0.99, optimize_for_inference 1.01.
Wall time is half of that at best. Where the cores are shared, OMP_WAIT_POLICY=passive saves much spinning.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Used when the configuration file is missing; keys left out have the defaults of models.NetConfig and DEFAULTS.
BUILT_IN = {
    "ve_cifar10_ncsnpp_continuous": {},
    "ve_cifar10_ncsnpp_deep_continuous": {"model": {"num_res_blocks": 8}},
    "vp_cifar10_ddpmpp_continuous": {
        "data": {"centered": True},
        "sde": {"name": "vpsde"},
        "model": {
            "fir": False,
            "progressive_input": "none",
            "embedding_type": "positional",
            "scale_by_sigma": False,
            "ema_rate": 0.9999,
        },
        "training": {"reduce_mean": True},
    },
    "mnist": {
        "data": {"image_size": 28, "num_channels": 1},
        "sde": {"sigma_max": 28.0},
        "model": {"nf": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": [14]},
    },
}
DEFAULTS = {
    "sde": {
        "name": "vesde",
        "sigma_min": 0.01,
        "sigma_max": 50.0,
        "beta_min": 0.1,
        "beta_max": 20.0,
        "num_scales": 1000,
    },
    "model": {"ema_rate": 0.999},
    "training": {"continuous": True, "reduce_mean": False, "likelihood_weighting": False},
    "optim": {
        "lr": 2e-4,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "warmup": 5000,
        "grad_clip": 1.0,
    },
}


def load_config(name):
    """A TOML or JSON file, JSON text, the name of a file in configs/, or a built-in name -> (tables, source).

    Names may leave out the prefix ve_ or vp_.
    """
    if name.lstrip().startswith("{"):
        tables, source = json.loads(name), "command line"
    else:
        names = (name, f"ve_{name}", f"vp_{name}")
        found = [p for p in (Path(name), *(CONFIGS / f"{n}.toml" for n in names)) if p.is_file()]
        built_in = [n for n in names if n in BUILT_IN]
        if found:
            source = str(found[0])
            if found[0].suffix == ".json":
                tables = json.loads(found[0].read_text())
            else:
                import tomllib

                tables = tomllib.loads(found[0].read_text())
        elif built_in:
            tables, source = BUILT_IN[built_in[0]], "built-in table"
        else:
            sys.exit(f"--config {name}: no such file, none in {CONFIGS}, none of {', '.join(BUILT_IN)}")
    merged = {t: {**DEFAULTS.get(t, {}), **tables.get(t, {})} for t in {*DEFAULTS, *tables}}
    return merged, source


def tune_allocator(argv):
    """Restarts once with glibc keeping freed memory, on huge pages.

    By default every large tensor is a fresh mmap whose pages fault in anew. The settings are only read at
    start-up, hence the restart.
    """
    if os.environ.get("BENCH_TORCH_TUNED") or platform.system() != "Linux":
        return
    env = dict(os.environ, BENCH_TORCH_TUNED="1")
    env.setdefault("MALLOC_MMAP_MAX_", "0")
    env.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 40))
    env.setdefault("MALLOC_TOP_PAD_", str(64 << 20))
    env.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    os.execve(sys.executable, [sys.executable, *argv], env)


# ---------------------------------------------------------------------------------------------------------
# Training


class Objective:
    """Perturbation and denoising score matching loss of a configuration (continuous, SMLD or DDPM)."""

    def __init__(self, tables, net, device):
        import torch

        self.sde, self.training, self.net = tables["sde"], tables["training"], net
        s = self.sde
        self.ratio = s["sigma_max"] / s["sigma_min"]
        if not self.training["continuous"]:
            n = s["num_scales"]
            self.sigmas = torch.exp(torch.linspace(math.log(s["sigma_max"]), math.log(s["sigma_min"]), n)).to(
                device
            )
            acp = torch.cumprod(1 - torch.linspace(s["beta_min"] / n, s["beta_max"] / n, n), 0).to(device)
            self.mean_table, self.std_table = acp.sqrt(), (1 - acp).sqrt()

    def draw(self, x0):
        """-> perturbed images, noise, labels, std and g, one of each per image."""
        import torch

        n, s = x0.shape[0], self.sde
        z = torch.randn_like(x0)
        g = None
        if not self.training["continuous"]:
            labels = torch.randint(0, s["num_scales"], (n,), device=x0.device)
            if s["name"] == "vesde":
                mean, std = None, self.sigmas[labels]
            else:
                mean, std = self.mean_table[labels], self.std_table[labels]
        else:
            t = torch.rand(n, device=x0.device) * (1 - 1e-5) + 1e-5
            if s["name"] == "vesde":
                mean, std = None, s["sigma_min"] * self.ratio**t
                g = std * math.sqrt(2 * math.log(self.ratio))
                labels = std
            else:
                rise = s["beta_max"] - s["beta_min"]
                log_mean = -0.25 * t * t * rise - 0.5 * t * s["beta_min"]
                mean, variance = torch.exp(log_mean), -torch.expm1(2 * log_mean)
                beta = s["beta_min"] + t * rise
                if s["name"] == "subvpsde":
                    std, g = variance, torch.sqrt(beta * -torch.expm1(4 * log_mean))
                else:
                    std, g = variance.sqrt(), beta.sqrt()
                labels = t * 999
        wide = std[:, None, None, None]
        x = torch.addcmul(x0 if mean is None else mean[:, None, None, None] * x0, z, wide)
        return x, z, labels, wide, g

    def __call__(self, x, z, labels, std, g):
        y = self.net(x, labels).float()
        # VE networks give the score, VP ones -std times it; either way std * score + z.
        r = y * std + z if self.sde["name"] == "vesde" else z - y
        if self.training["likelihood_weighting"]:
            r = r / std
        e = (r * r).flatten(1)
        e = e.mean(1) if self.training["reduce_mean"] else 0.5 * e.sum(1)
        return (e * g * g if self.training["likelihood_weighting"] else e).mean()


class TensorwiseAdam:
    """Clipping, Adam and EMA with all passes over one parameter before the next, so that they hit the cache.

    torch.optim's foreach form sweeps the whole model from memory once for each elementwise operation.
    """

    def __init__(self, params, optim, ema_rate):
        import torch

        self.o, self.ema_rate, self.step_count = optim, ema_rate, 0
        self.params = list(params)
        self.state = [(torch.zeros_like(p), torch.zeros_like(p), p.detach().clone()) for p in self.params]

    def step(self):
        import torch

        o, k = self.o, self.step_count
        with torch.no_grad():
            lr = o["lr"] * min(k / o["warmup"], 1.0) if o["warmup"] > 0 else o["lr"]
            scale = 1.0
            if o["grad_clip"] >= 0:
                norms = [torch.norm(p.grad) for p in self.params if p.grad is not None]
                scale = min(1.0, o["grad_clip"] / (torch.norm(torch.stack(norms)).item() + 1e-6))
            self.step_count = k = k + 1
            b1, b2 = o["beta1"], o["beta2"]
            root = math.sqrt(1 - b2**k)
            rate, eps = lr * root / (1 - b1**k), o["eps"] * root
            keep = 1 - min(self.ema_rate, (1 + k) / (10 + k))
            for p, (m, v, ema) in zip(self.params, self.state):
                g = p.grad
                if g is None:
                    continue
                factor = scale
                if o["weight_decay"]:
                    g, factor = g.mul_(scale).add_(p, alpha=o["weight_decay"]), 1.0
                # The clipping factor is a coefficient here, not a pass over the gradient.
                m.mul_(b1).add_(g, alpha=(1 - b1) * factor)
                v.mul_(b2).addcmul_(g, g, value=(1 - b2) * factor * factor)
                p.addcdiv_(m, torch.sqrt(v).add_(eps), value=-rate)
                # Not lerp_, whose CPU kernel is three times as slow as these two in PyTorch 1.13.
                ema.mul_(1 - keep).add_(p, alpha=keep)
                p.grad = None


class ForeachAdam:
    """torch.optim.Adam in its foreach or fused form, clip_grad_norm_, and EMA by one foreach lerp."""

    def __init__(self, params, optim, ema_rate, form):
        import torch

        self.o, self.ema_rate, self.step_count = optim, ema_rate, 0
        self.params = list(params)
        self.ema = [p.detach().clone() for p in self.params]
        options = {} if form == "loop" else {form: True}
        o = optim
        self.adam = torch.optim.Adam(
            self.params, o["lr"], (o["beta1"], o["beta2"]), o["eps"], o["weight_decay"], **options
        )

    def step(self):
        import torch

        o, k = self.o, self.step_count
        self.adam.param_groups[0]["lr"] = o["lr"] * min(k / o["warmup"], 1.0) if o["warmup"] > 0 else o["lr"]
        if o["grad_clip"] >= 0:
            torch.nn.utils.clip_grad_norm_(self.params, o["grad_clip"])
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step_count = k = k + 1
        keep = 1 - min(self.ema_rate, (1 + k) / (10 + k))
        with torch.no_grad():
            if hasattr(torch, "_foreach_lerp_"):
                torch._foreach_lerp_(self.ema, [p.detach() for p in self.params], keep)
            else:
                torch._foreach_mul_(self.ema, 1 - keep)
                torch._foreach_add_(self.ema, [p.detach() for p in self.params], alpha=keep)


# ---------------------------------------------------------------------------------------------------------
# Measuring


def slow_blas():
    """Whether matrix products run at the reference BLAS's pace (under 20 GFLOP/s)."""
    import torch

    a = torch.ones(256, 256)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return min(seconds) > 2 * 256**3 / 20e9


def fastest_fir(device, dtype, args, layout):
    """Times fir.py's forms, forwards and backwards, on a typical tensor on the GPU -> the fastest."""
    import torch

    import fir

    op = fir.Fir([1, 3, 3, 1]).to(device)
    x = torch.randn(args.batch, 128, 32, 32, device=device, dtype=dtype).contiguous(memory_format=layout)
    x.requires_grad_(args.mode == "train")
    fastest, least = fir.FORM, math.inf
    for form in fir.FORMS:
        fir.FORM = form
        try:
            for i in range(13):
                if i == 3:
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                with torch.set_grad_enabled(args.mode == "train"):
                    y = op.up(op.down(x))
                if args.mode == "train":
                    y.backward(y.detach())
            torch.cuda.synchronize()
        except RuntimeError as error:  # not every form exists in every type
            print(f"fir {form}: {error}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        if seconds < least:
            fastest, least = form, seconds
    return fastest


def store_low(net):
    """Keeps in bf16 what autocast would otherwise convert anew in every evaluation; not the Fourier features,
    whose angles need float32."""
    import torch

    import layers

    for module in net.modules():
        if isinstance(module, layers.GaussianFourierProjection):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)


def freeze(net, args, x, labels):
    """The forward as a traced, frozen graph (CPU inference)."""
    import torch

    import fir

    # The adjoint form calls a backward operator, which the tracer does not know.
    fir.FORM = "slices"
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(net, (x, labels), check_trace=False))
        return torch.jit.optimize_for_inference(traced) if args.trace == "optimize" else traced


def run(args):
    import torch

    import fir
    import layers
    import models
    import sampling

    tables, source = load_config(args.config)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    flush = torch.set_flush_denormal(not args.keep_denormals)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not args.no_tf32
    compiled = args.variant == "compile"
    layout = torch.contiguous_format if args.variant == "eager" else torch.channels_last
    if args.fir:
        fir.FORM = args.fir
    elif device.type == "cuda":
        # A compiler fuses the slices, and does not see into cuDNN's depthwise convolutions.
        low = torch.bfloat16 if args.precision == "bf16" else torch.float32
        fir.FORM = "slices" if compiled else fastest_fir(device, low, args, layout)
    if args.dropout_form:
        layers.FAST_DROPOUT = args.dropout_form == "bits"
    if args.matmul:
        layers.ONEDNN_MATMUL = args.matmul == "onednn"
    else:
        layers.ONEDNN_MATMUL = device.type == "cpu" and slow_blas()

    # [sde] has a name too: [model], which comes later, must state its own.
    model_table = {"name": "ncsnpp", **tables["model"]}
    net_config = models.NetConfig.from_tables(tables.get("data", {}), tables["sde"], model_table)
    net = models.build(net_config)
    net = net.to(device).to(memory_format=layout).train(args.mode == "train")
    parameters = sum(p.numel() for p in net.parameters())
    size = (args.batch, net_config.num_channels, net_config.image_size, net_config.image_size)
    x0 = torch.rand(size, device=device).contiguous(memory_format=layout)
    objective = Objective(tables, net, device)

    def precision():
        if args.precision == "bf16":
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    if args.mode == "train":
        trainable = [p for p in net.parameters() if p.requires_grad]
        # The fused form for the CPU came with PyTorch 2.4.
        version = tuple(int(v) for v in torch.__version__.split(".")[:2])
        form = args.optimizer or ("tensorwise" if device.type == "cpu" and version < (2, 4) else "fused")
        optim, rate = tables["optim"], tables["model"]["ema_rate"]
        if form == "tensorwise":
            stepper = TensorwiseAdam(trainable, optim, rate)
        else:
            stepper = ForeachAdam(trainable, optim, rate, form)

        def loss_of(*drawn):
            return objective(*drawn)

        if compiled:
            loss_of = torch.compile(loss_of, mode=args.compile_mode)

        def step():
            if compiled and device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            with precision():
                loss = loss_of(*objective.draw(x0))
            loss.backward()
            stepper.step()
            return loss.detach()

    else:
        form = None
        with torch.no_grad():
            x, _, labels, _, _ = objective.draw(x0)
        net.requires_grad_(False)
        if device.type == "cuda" and args.precision == "bf16":
            store_low(net)
        forward = torch.compile(net, mode=args.compile_mode) if compiled else net
        if args.trace != "off":
            forward = freeze(net, args, x, labels)
        update = sampling.Update(tables, forward) if args.mode == "sample" else None

        def step():
            if compiled and device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            with torch.inference_mode(not compiled), torch.set_grad_enabled(False), precision():
                return update(x) if update else forward(x, labels)

    def sync():
        if device.type == "cuda":
            torch.cuda.synchronize()

    def timed(group=1):
        sync()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(group):
            result = step()
        sync()
        return (time.perf_counter() - start) / group, (time.process_time() - cpu) / group, result

    warmup = args.warmup
    if warmup is None:
        warmup = 10 if device.type == "cuda" else 3 if compiled or args.trace != "off" else 1
    warm = [timed()[0] for _ in range(warmup)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times, cpu_times = [], []
    for _ in range(args.steps):
        if args.seconds > 0 and len(times) >= 3 and sum(times) * args.group >= args.seconds:
            break
        seconds, cpu, result = timed(args.group)
        times.append(seconds)
        cpu_times.append(cpu)
    value = float(result.float().mean())
    # Langevin steps of an untrained network, whose score is next to nothing, are huge.
    if args.mode != "sample" and not math.isfinite(value):
        sys.exit(f"the result is not finite ({value})")
    if args.profile:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as prof:
            step()
            sync()
        by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        print(prof.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=50))
    median = statistics.median(times)
    return {
        "framework": f"pytorch {torch.__version__}",
        "config": args.config,
        "config_source": source,
        "parameters": parameters,
        "mode": args.mode,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": args.threads if device.type == "cpu" else None,
        "precision": args.precision,
        "variant": args.variant,
        "compile_mode": args.compile_mode if compiled else None,
        "fir": fir.FORM,
        "tf32": device.type == "cuda" and not args.no_tf32,
        "optimizer": form,
        "matmul": "onednn" if layers.ONEDNN_MATMUL else "blas",
        "trace": None if args.mode == "train" else args.trace,
        "flush_denormal": flush and not args.keep_denormals,
        "allocator_tuned": bool(os.environ.get("BENCH_TORCH_TUNED")),
        "batch": args.batch,
        "steps": len(times),
        "group": args.group,
        "warmup_seconds": warm,
        "seconds": times,
        "cpu_seconds": cpu_times,
        "median_seconds": median,
        "images_per_second": args.batch / median,
        "best_images_per_second": args.batch / min(times),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_cuda_mib": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        "reserved_cuda_mib": torch.cuda.max_memory_reserved() / 2**20 if device.type == "cuda" else None,
        "result": value,
    }


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument(
        "--config", default="cifar10_ncsnpp_continuous", help="name, TOML or JSON file, or JSON text"
    )
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--mode", choices=("train", "forward", "sample"), default="train")
    p.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--steps", type=int, default=3, help="timings")
    p.add_argument("--group", type=int, default=1, help="steps in each timing")
    p.add_argument("--seconds", type=float, default=0, help="no more timings after so long, but three; 0: all")
    p.add_argument(
        "--warmup", type=int, help="steps before them (default: 10 on CUDA, 3 when compiled, else 1)"
    )
    p.add_argument("--variant", choices=("eager", "channels_last", "compile"), default="channels_last")
    p.add_argument("--compile-mode", default="max-autotune")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--json", type=Path, help="write the result here")
    p.add_argument(
        "--optimizer",
        choices=("tensorwise", "foreach", "fused", "loop"),
        help="default: fused where there is one, else tensorwise",
    )
    p.add_argument("--trace", choices=("off", "freeze", "optimize"), default="off", help="forward: torch.jit")
    p.add_argument(
        "--fir",
        choices=("adjoint", "depthwise", "separable", "slices", "pooling"),
        help="see fir.py; default: adjoint, on GPUs the fastest of all",
    )
    p.add_argument("--dropout-form", choices=("bits", "torch"))
    p.add_argument("--matmul", choices=("blas", "onednn"), help="default: oneDNN if the BLAS is a slow one")
    p.add_argument("--keep-denormals", action="store_true")
    p.add_argument("--plain-allocator", action="store_true", help="glibc's allocator as it is")
    p.add_argument("--no-tf32", action="store_true")
    p.add_argument("--profile", action="store_true", help="print one more step's operator table")
    return p


def main():
    args = parser().parse_args()
    if args.device == "cpu" and not args.plain_allocator:
        tune_allocator(sys.argv)
    result = run(args)
    print(
        f"{result['framework']} {args.mode} {args.precision} {args.variant} batch {args.batch}: "
        f"median {result['median_seconds']:.3f} s (of {' '.join(f'{t:.3f}' for t in result['seconds'])}), "
        f"{result['images_per_second']:.3f} img/s, best {result['best_images_per_second']:.3f}, "
        f"CPU time {min(result['cpu_seconds']):.3f} s, "
        f"RSS {result['peak_rss_mib']:.0f} MiB"
        + (f", CUDA {result['peak_cuda_mib']:.0f} MiB" if result["peak_cuda_mib"] is not None else "")
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
