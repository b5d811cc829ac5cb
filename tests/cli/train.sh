make_config
run 0 "$sgm" train tiny.toml --dry-run
cp out resolved.toml
has resolved.toml 'num_scales = 1000'
run 0 "$sgm" train resolved.toml --dry-run
same out resolved.toml
absent run
# An override takes one value, wherever it stands.
run 0 "$sgm" train --set optim.lr=0.5 --set data.path=x tiny.toml --dry-run
has out 'lr = 0.5'
has out 'path = "x"'

run 0 "$sgm" train tiny.toml --workdir run --threads 2
has err 'device: cpu: 2 threads'
has err 'step 4/4'
for file in config.toml metrics.jsonl checkpoints/checkpoint_00000004.safetensors samples/step_00000004.png; do
  [ -s "run/$file" ] || fail "run/$file is missing"
done
[ "$(wc -l <run/metrics.jsonl)" -eq 4 ] || fail "metrics.jsonl has not four lines"
ls run/events.out.tfevents.* >out 2>&1 || fail "no TensorBoard events"
cp run/checkpoints/checkpoint_00000004.safetensors before
bad '--resume' "$sgm" train tiny.toml --workdir run
bad 'lr = ' "$sgm" train tiny.toml --workdir run --resume --set optim.lr=0.5
same run/checkpoints/checkpoint_00000004.safetensors before
run 0 "$sgm" train tiny.toml --workdir run --resume --steps 6 --threads 2
run 0 "$sgm" train tiny.toml --workdir whole --steps 6 --threads 2
same run/checkpoints/checkpoint_00000006.safetensors whole/checkpoints/checkpoint_00000006.safetensors
same run/samples/step_00000006.png whole/samples/step_00000006.png
no_temporaries
