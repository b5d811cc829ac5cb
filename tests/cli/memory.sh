# What training takes of memory is told beforehand, and kept below --max-memory.
make_config
run 0 "$sgm" train tiny.toml --dry-run --set training.batch_size=16
[ "$(grep -c '^memory: .* MiB (.* weights and optimiser, .* activations, .* gradients and temporary)$' err)" -eq 1 ] ||
  fail "not one line of the plan: $(cat err)"
# needed SETTING...: what the plan with them takes, and 1 % more, as an option's value.
needed() {
  run 0 "$sgm" train tiny.toml --dry-run --threads 2 --set training.batch_size=16 "${@/#/--set=}"
  sed -n 's/^memory: \([0-9.]*\) MiB .*/\1/p' err | awk '{ printf "%dKiB", $1 * 1024 * 1.01 }'
}
recomputed=$(needed training.recompute=true)
run 0 "$sgm" train tiny.toml --dry-run --threads 2 --set training.batch_size=16 --max-memory "$recomputed"
has err ', with recomputation to fit '
has out 'recompute = true'
has out 'micro_batch = 0'
split=$(needed training.micro_batch=4 training.recompute=true)
run 0 "$sgm" train tiny.toml --dry-run --threads 2 --set training.batch_size=16 --max-memory "$split"
grep -q '^micro_batch = [48]$' out || fail "no micro-batch was chosen: $(cat out)"
has err 'of the 16 images'
bad '--max-memory 64 KiB' "$sgm" train tiny.toml --workdir none --max-memory 64KiB
bad 'training.micro_batch' "$sgm" train tiny.toml --workdir none --set training.batch_size=4 --set training.micro_batch=3
absent none

# The choice is kept, and recomputation changes nothing.
run 0 "$sgm" train tiny.toml --workdir whole --set training.batch_size=16 --threads 2
run 0 "$sgm" train tiny.toml --workdir small --set training.batch_size=16 --threads 2 --max-memory "$recomputed"
has small/config.toml 'recompute = true'
cut -d, -f1,2 whole/metrics.jsonl >whole.losses
cut -d, -f1,2 small/metrics.jsonl >small.losses
same whole.losses small.losses
same whole/samples/step_00000004.png small/samples/step_00000004.png
run 0 "$sgm" train tiny.toml --workdir parts --threads 2 --set training.batch_size=16 --max-memory "$split"
run 0 "$sgm" train tiny.toml --workdir parts --set training.batch_size=16 --resume --steps 6
has parts/config.toml 'micro_batch = 0'
bad 'memory' "$sgm" sample whole --out a.png --n 64 --device cpu --max-memory 64KiB
no_temporaries
