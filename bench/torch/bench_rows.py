#!/usr/bin/env python3
"""Runs several rows of bench_torch.py in one process, which saves the start of each.

    bench_rows.py FOLDER [OPTION ...] < rows

A row is a line "NAME OPTION ...", the options being bench_torch.py's; those of the command line come after
them and win. Each leaves FOLDER/NAME.json; a row that fails leaves {"error": ...} and the next one runs.
"""

import gc
import json
import shlex
import sys
import time
from pathlib import Path

import bench_torch


def run_row(options):
    import torch

    args = bench_torch.parser().parse_args(options)
    # Before anything runs: what an interrupted row leaves must not depend on the one before.
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if args.variant == "compile":
        torch._dynamo.reset()
    try:
        return bench_torch.run(args)
    except Exception as error:
        if args.variant != "compile" or args.fir:
            raise
        print(f"compiling the form 'slices' failed, now 'depthwise': {error}", file=sys.stderr)
    args.fir = "depthwise"
    torch._dynamo.reset()
    return bench_torch.run(args)


def main():
    folder, common = Path(sys.argv[1]), sys.argv[2:]
    failed = 0
    for line in sys.stdin:
        name, *options = shlex.split(line, comments=True) or [""]
        if not name:
            continue
        start = time.perf_counter()
        try:
            record = run_row(options + common)
            print(f"{name}: {record['images_per_second']:.1f} img/s", flush=True)
        except (Exception, SystemExit) as error:
            failed += 1
            text = str(error).strip().splitlines() or [""]
            record = {"error": f"{type(error).__name__}: {text[0][:300]}"}
            print(f"{name}: {record['error']}", flush=True)
        record["whole_seconds"] = time.perf_counter() - start
        (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
