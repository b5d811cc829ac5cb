#!/usr/bin/env bash
# Checks everything on a real GPU: the whole test suite, timings beside PyTorch's where python3 has it, a short
# training run and its samples. Leaves results.json, log.txt and samples.png in OUTDIR, after 9 minutes at the most
# (a build not counted): what there is no time for is listed as not run. Exits with 0 when every test passed, 1 when
# not, 2 at once where there is no GPU.
# Usage: scripts/gpu_check.sh OUTDIR [BUILD]
# BUILD: a build tree (default: build/release, built if need be), or the folder that scripts/gpu_pack.sh made.
# Environment: GPU_CHECK_SECONDS (530) for all parts together, GPU_CHECK_TRAINING (120) for the training, PYTHON
# (python3), CUDA_VISIBLE_DEVICES.
set -uo pipefail

missing() {
  echo "gpu_check: $*" >&2
  exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || missing "usage: gpu_check.sh OUTDIR [BUILD]"
command -v nvidia-smi >/dev/null ||
  missing "there is no GPU here: no nvidia-smi, so no NVIDIA driver is installed; docs/gpu.md takes the check to" \
    "a machine that has one"
gpus=$(nvidia-smi -L 2>&1) && grep -q '^GPU ' <<<"$gpus" ||
  missing "there is no GPU here: nvidia-smi says '$(head -n 1 <<<"$gpus")'"

mkdir -p "$1" || missing "$1 cannot be created; choose another OUTDIR"
out=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
linked=""
trap '[ -z "$linked" ] || rm -f "$linked"; rm -rf "$work"' EXIT

# A packed folder: unpack it and run the copy of this script inside.
packed=${2:-$here}/sgm-gpu.tar.xz
if [ -f "$packed" ]; then
  tar -xJf "$packed" -C "$work" 2>/dev/null ||
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$packed" "$work" ||
    missing "$packed cannot be unpacked (neither xz nor python3?)"
  "$work/sgm-gpu/scripts/gpu_check.sh" "$out" "$work/sgm-gpu/build"
  exit
fi

root=$(dirname "$here")
build=$(realpath -m "${2:-$root/build/release}")
cd "$root" || exit 2
if [ ! -x "$build/sgm" ]; then
  [ $# -eq 1 ] || missing "$build holds no sgm; build it, or leave BUILD out"
  command -v cmake >/dev/null || missing "no cmake to build with; bring a build made by scripts/gpu_pack.sh"
  cmake --preset release -DCMAKE_CUDA_ARCHITECTURES=native >"$work/cmake.log" 2>&1 ||
    missing "cmake failed: $(grep -m 1 -A 2 'Error' "$work/cmake.log" | tr -s '\n ' ' ')"
  why=$(sed -n 's/.*no CUDA backend: //p' "$work/cmake.log")
  [ -z "$why" ] || missing "the CUDA backend cannot be built: $why"
  cmake --build --preset release || missing "the build failed"
fi
commit=$(cat "$build/commit" 2>/dev/null || git describe --always --dirty 2>/dev/null || echo unknown)

# shellcheck source=scripts/gpu_check_parts.sh
. scripts/gpu_check_parts.sh
# shellcheck source=scripts/gpu_check_report.sh
. scripts/gpu_check_report.sh

find_libraries
doctor=$(sgm doctor 2>&1) || missing "sgm does not start: $(tail -n 1 <<<"$doctor")"
grep -q '^cuda: ' <<<"$doctor" && ! grep -q '^cuda: .*every command runs on the CPU' <<<"$doctor" ||
  missing "sgm sees no GPU: $(grep '^cuda: ' <<<"$doctor")"
link_sources

start_clock "${GPU_CHECK_SECONDS:-530}"
# First what is not timed, side by side where the memory allows it; then the timings, alone on the device.
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1)
side_by_side=$((${memory:-0} >= 40000))
for group in check_training check_tests check_pytorch; do
  if [ $side_by_side -eq 1 ]; then $group & else $group; fi
done
wait
time_sgm
time_pytorch
time_profile
time_without_graphs
time_kernels
time_more_pytorch

write_results >"$out/results.json"
write_log >"$out/log.txt"
[ ! -s "$work/samples.png" ] || cp "$work/samples.png" "$out/samples.png"
summary
all_tests_passed
