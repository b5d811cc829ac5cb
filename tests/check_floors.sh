#!/usr/bin/env bash
# Fails when a folder includes one that docs/architecture.md does not put below it.
set -euo pipefail
cd "$(dirname "$0")/.."

allowed() {
  case $1 in
    core | io | kernels | sde) echo core ;;
    tensor | backend) echo core kernels ;;
    profile) echo core kernels tensor ;;
    device) echo core kernels backend emulator ;;
    data) echo core io tensor ;;
    autograd) echo core tensor kernels ;;
    nn | optim) echo core tensor autograd kernels nn ;;
    sampling) echo core tensor sde ;;
    score) echo core tensor autograd kernels nn sde sampling ;;
    train) echo core io tensor autograd nn sde score optim data ;;
    plot) echo core io data ;;
    lab) echo core io kernels tensor autograd nn sde score sampling optim data plot ;;
    cli) echo core io tensor autograd kernels nn sde score sampling optim data train plot lab profile ;;
    *) echo "check_floors: unknown folder $1" >&2 && exit 2 ;;
  esac
}

bad=0
while IFS= read -r file; do
  folder=$(sed -E 's,^(include/sgm|src)/,,; s,/.*,,' <<<"$file")
  [ "$folder" = version.h.in ] && continue
  # Device code is the other half of backend/cuda; the op structs beside it know neither.
  [ "$folder" = kernels ] && grep -q __device__ "$file" && folder=device
  below=$(allowed "$folder")
  while IFS= read -r used; do
    case " $folder $below " in
      *" $used "*) ;;
      *) echo "$file: $folder must not include $used" && bad=1 ;;
    esac
  done < <(grep -v 'sgm/version.h' "$file" | sed -nE 's,^#include "(sgm/)?([a-z]+)/.*,\2,p' | sort -u)
done < <(find include/sgm src kernels -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

# Vendor headers stay where they belong.
while IFS= read -r hit; do
  echo "$hit: dnnl.hpp belongs to src/backend/cpu" && bad=1
done < <(grep -rl 'dnnl.hpp' include src kernels | grep -v '^src/backend/cpu/' || true)
while IFS= read -r hit; do
  echo "$hit: CUDA headers belong to src/backend/cuda and device code" && bad=1
done < <(grep -rlE '#include <(cuda|cudnn|cublas)' include src kernels | grep -vE '^(src/backend/cuda/|kernels/device.h)' || true)
while IFS= read -r hit; do
  echo "$hit: cairo.h and gif_lib.h belong to src/plot" && bad=1
done < <(grep -rlE '#include <(cairo|gif_lib)' include src kernels | grep -v '^src/plot/' || true)
exit $bad
