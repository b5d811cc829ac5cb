#!/usr/bin/env bash
# Training steps, network evaluations and updates of samplers beside PyTorch's, and convolutions beside oneDNN's, in one
# run on this machine, in turns: machines slow down for seconds to minutes, which all should share. Writes OUT.json and
# prints the ratios.   Usage: bench/run.sh OUT.json [BATCH of cifar10]
# Wants scripts/setup.sh, a release build, and PyTorch: apt-get install --no-install-recommends python3-torch.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bench/run.sh OUT.json}
batch=${2:-4}
python=${PYTHON:-/usr/bin/python3}
build=build/release/bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
threads=$(nproc)

"$python" bench/torch/check_golden.py tests/golden >"$work/golden.log" || { cat "$work/golden.log"; exit 1; }
# Configuration, images, timings in each of three turns, modes; train-lean: with what 60 % of PyTorch's memory takes.
while read -r config images steps modes; do
  for row in $modes; do
    mode=${row%-lean}
    lean=${row#"$mode"}
    declare -A saving=([f32]=${lean:+--recompute --late-gradients} [bf16]=${lean:+--late-gradients})
    for turn in 1 2 3; do
      for precision in f32 bf16; do
        "$build/bench_steps" "configs/$config.toml" --mode $mode ${saving[$precision]} --batch "$images" --precision $precision \
          --steps "$steps" --json "$work/sgm-$config-$row-$precision.$turn.json" </dev/null
      done
      [ "$lean" ] || "$python" bench/torch/bench_torch.py --config "configs/$config.toml" --batch "$images" --mode $mode --precision f32 \
        --threads "$threads" --device cpu --steps "$steps" --json "$work/torch-$config-$mode-f32.$turn.json" >/dev/null
    done
  done
done <<ROWS
ve_cifar10_ncsnpp_continuous $batch 4 train train-lean forward sample
vp_cifar10_ddpmpp_continuous $batch 3 train forward sample
mnist 64 6 train forward sample
ve_ffhq_256_ncsnpp_continuous 1 2 train forward
ROWS
for precision in f32 bf16; do
  "$build/bench_conv" configs/ve_cifar10_ncsnpp_continuous.toml --batch "$batch" --precision $precision \
    --json "$work/conv-$precision.json" | tail -4
done
"$python" bench/report.py "$work" "$out" "$(git rev-parse --short HEAD)"
