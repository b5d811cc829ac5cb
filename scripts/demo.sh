#!/usr/bin/env bash
# From a fresh machine to pictures: installs what is missing, builds, trains on the shipped MNIST digits and draws
# demo/samples.png.   Usage: scripts/demo.sh [STEPS]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cmake --preset release -DSGM_TESTS=OFF -DSGM_BENCH=OFF
cmake --build --preset release

steps=()
[ $# -gt 0 ] && steps=(--steps "$1")
build/release/sgm train configs/mnist.toml --workdir demo --resume "${steps[@]}"
build/release/sgm sample demo --n 64 --seed 1 --out demo/samples.png
echo "the digits it draws: demo/samples.png; how it went: demo/metrics.jsonl, demo/samples/"
