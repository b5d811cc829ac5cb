#!/usr/bin/env bash
# Puts what gpu_check.sh needs on a bare machine with a GPU, where nothing can be installed, into one folder of under
# 60 MiB: the program, the tests of the GPU, bench_steps, the libraries they need beside CUDA's, cuDNN's and the C and
# C++ libraries, and the files of this repository. There: DIR/gpu_check.sh OUTDIR
# Usage: scripts/gpu_pack.sh [BUILD] DIR     (BUILD: build/release; the machine's architecture suffices:
#   cmake --preset release -DSGM_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES=90)
# Environment: GPU_PACK_NATIVE=1 packs a build that is tuned for this machine's processor all the same.
set -euo pipefail

die() {
  echo "gpu_pack: $*" >&2
  exit 2
}

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: gpu_pack.sh [BUILD] DIR"
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/release
[ $# -eq 1 ] || build=$(realpath -m "$1")
folder=${*: -1}
limit=$((60 << 20))

[ -x "$build/sgm" ] || die "$build holds no sgm; build it first"
doctor=$("$build/sgm" doctor)
! grep -q '^cuda: .*no CUDA backend' <<<"$doctor" ||
  die "$build/sgm has no CUDA backend; see what configuring it printed"
[ -n "${GPU_PACK_NATIVE:-}" ] || ! grep -q 'tuned for the machine' <<<"$doctor" ||
  die "$build is tuned for this machine's processor and may not run on another; configure with -DSGM_NATIVE=OFF"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/sgm-gpu
mkdir -p "$pack/build/bench" "$pack/build/tests" "$pack/build/lib"

# The tracked files as they are here, without pictures.
cd "$root"
git ls-files -z | grep -zv '^docs/images/' | xargs -0 cp --parents -t "$pack"
git describe --always --dirty >"$pack/build/commit"
sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt" >"$pack/build/source"

# Programs whose tests run on a GPU: all of them do, or some have "cuda" as their parameter.
has_gpu_tests() {
  case ${1##*/} in test_cuda | test_curand) return ;; esac
  "$1" --gtest_list_tests | grep -q '^  [^ ]*/[^ ]*cuda'
}

programs=(sgm bench/bench_steps)
[ -x "$build/bench/bench_steps" ] || die "$build/bench/bench_steps is missing; configure with -DSGM_BENCH=ON and build"
for program in "$build"/tests/test_*; do
  if [ -f "$program" ] && [ -x "$program" ] && has_gpu_tests "$program"; then programs+=("tests/${program##*/}"); fi
done
[ ${#programs[@]} -gt 2 ] || die "$build/tests holds no tests of the GPU; build them"
for program in "${programs[@]}"; do strip -o "$pack/build/$program" "$build/$program"; done

# What the machine has of its own: CUDA and cuDNN, and the libraries of C and C++.
ldd "${programs[@]/#/$build/}" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(libcu|libnv|libc\.|libm\.|libdl\.|librt\.|libpthread\.|libresolv\.|libstdc\+\+|libgcc_s|ld-linux)' |
  while read -r library; do
    strip -o "$pack/build/lib/${library##*/}" "$(realpath "$library")"
  done

mkdir -p "$folder"
# One dictionary over all: the programs share most of their code.
tar -C "$work" -cf - sgm-gpu | xz -T1 --lzma2=preset=6,dict=128MiB >"$folder/sgm-gpu.tar.xz"
cp "$root/scripts/gpu_check.sh" "$folder/gpu_check.sh"
size=$(stat -c %s "$folder/sgm-gpu.tar.xz")
printf '%s: %d.%d MiB, %d programs, unpacked %s\n' "$folder" $((size >> 20)) $(((size >> 10) % 1024 * 10 / 1024)) \
  ${#programs[@]} "$(du -sh "$pack" | cut -f 1)"
[ "$size" -le $limit ] || die "that is more than 60 MiB; build for one architecture only"
