# On a GPU: captured or not, interrupted or not, a run has the same bits.
if [ "$visible" = all ]; then unset CUDA_VISIBLE_DEVICES; else export CUDA_VISIBLE_DEVICES=$visible; fi
run 0 "$sgm" doctor
if ! grep '^cuda: ' out | grep -qv 'every command runs on the CPU'; then
  echo "skipped: $(grep '^cuda: ' out)"
  exit 77
fi
make_config
local run
run 0 "$sgm" train tiny.toml --workdir parts --device cuda
has err 'device: cuda: '
run 0 "$sgm" train tiny.toml --workdir parts --device cuda --resume --steps 12
run 0 "$sgm" train tiny.toml --workdir whole --device cuda --steps 12
! grep -q 'call by call' err || fail "steps were not captured: $(cat err)"
run 0 "$sgm" train tiny.toml --workdir calls --device cuda --steps 12 --no-graph
for run in parts calls; do
  same whole/checkpoints/checkpoint_00000012.safetensors $run/checkpoints/checkpoint_00000012.safetensors
  same whole/samples/step_00000012.png $run/samples/step_00000012.png
done
run 0 "$sgm" train tiny.toml --workdir cpu --device cpu --steps 12
for run in whole cpu; do sed 's/.*"loss":\([^,}]*\).*/\1/' $run/metrics.jsonl >$run.losses; done
paste whole.losses cpu.losses | awk '!(($1 - $2) ^ 2 <= 1e-6 * $2 ^ 2) { exit 1 } END { if (NR != 12) exit 1 }' ||
  fail "losses on the GPU and on the CPU differ: $(paste whole.losses cpu.losses)"
run 0 "$sgm" sample whole --out a.png --n 4 --device cuda
run 0 "$sgm" sample whole --out b.png --n 4 --device cuda --no-graph
same a.png b.png
bad 'memory' "$sgm" train tiny.toml --workdir small --device cuda --max-memory 64kB
no_temporaries
