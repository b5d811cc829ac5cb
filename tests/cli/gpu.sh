# Where there is no GPU, everything says so and why.
make_config
local why versions='(driver for CUDA [0-9]+\.[0-9]+|no NVIDIA driver), runtime [0-9]+\.[0-9]+'
run 0 "$sgm" doctor
why=$(sed -n 's/^cuda: \(.*\); every command runs on the CPU$/\1/p' out)
[ -n "$why" ] || fail "doctor does not say why no GPU is used: $(cat out)"
case $why in
  *'no CUDA backend'*) ;;
  *) grep -qE "$versions" <<<"$why" || fail "doctor names no versions of driver and runtime: $why" ;;
esac
bad "$why" "$sgm" train tiny.toml --workdir run --device cuda
has err '--device cpu'
absent run
bad "$why" "$sgm" profile tiny.toml --device cuda
run 0 "$sgm" train tiny.toml --workdir run --steps 1
[ "$(grep -c '^device: cpu: .*; no GPU: ' err)" -eq 1 ] || fail "auto does not say that it uses the CPU: $(cat err)"
has err "; no GPU: $why"
run 0 "$sgm" train tiny.toml --workdir chosen --steps 1 --device cpu
! grep -q 'no GPU' err || fail "--device cpu explains itself: $(cat err)"

# The check of a GPU ends before it begins.
mkdir nothing broken
printf '#!/bin/sh\necho "No devices were found"\nexit 6\n' >broken/nvidia-smi
chmod +x broken/nvidia-smi
for tools in nothing "broken:$PATH"; do
  PATH=$tools run 2 /bin/bash "$repository/scripts/gpu_check.sh" results
  [ "$(cat out err | wc -l)" -eq 1 ] || fail "gpu_check.sh wrote more than a line: $(cat out err)"
  has err 'gpu_check: there is no GPU here: '
  absent results
done
has err 'No devices were found'
