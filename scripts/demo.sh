#!/usr/bin/env bash
# From a fresh machine to pictures: installs what is missing, builds, trains on the shipped MNIST digits and draws
# demo/samples.png.   Usage: scripts/demo.sh [STEPS]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
# Code for GPUs takes minutes to compile: only where there is one, and only for that one.
preset=cpu options=()
if nvidia-smi -L >/dev/null 2>&1; then
  preset=release options=(-DCMAKE_CUDA_ARCHITECTURES=native)
fi
cmake --preset $preset -DSGM_TESTS=OFF -DSGM_BENCH=OFF "${options[@]}"
cmake --build --preset $preset

steps=()
[ $# -gt 0 ] && steps=(--steps "$1")
build/$preset/sgm train configs/mnist.toml --workdir demo --resume "${steps[@]}"
build/$preset/sgm sample demo --n 64 --seed 1 --out demo/samples.png
echo "the digits it draws: demo/samples.png; how it went: demo/metrics.jsonl, demo/samples/"
