make_config
local signal pid code number
for signal in TERM INT; do
  # A shell ignores SIGINT for what it starts in the background, and the child inherits that; job control does not.
  set -m
  "$sgm" train tiny.toml --workdir "run$signal" --steps 1000000 >out 2>err &
  pid=$!
  set +m
  wait_for "run$signal/metrics.jsonl"
  sleep 0.3
  kill -s $signal $pid
  wait $pid
  code=$?
  [ $code -eq 130 ] || fail "SIG$signal: exit code $code, expected 130"
  has err 'interrupted: saved'
  number=$(find "run$signal/checkpoints" -name 'checkpoint_*.safetensors' | wc -l)
  [ "$number" -eq 1 ] || fail "SIG$signal left $number checkpoints"
  run 0 "$sgm" info "run$signal"
  number=$(sed -n 's/^step: //p' out)
  run 0 "$sgm" train tiny.toml --workdir "run$signal" --resume --steps $((number + 2))
  [ "$(wc -l <"run$signal/metrics.jsonl")" -eq $((number + 2)) ] || fail "SIG$signal: steps are missing in metrics.jsonl"
  no_temporaries
done

set -m
"$sgm" sample runTERM --out late.npz --n 100000 --batch 4 --steps 1000 >out 2>err &
pid=$!
set +m
for number in $(seq 300); do
  grep -q '^step' err && break
  sleep 0.1
done
kill -s INT $pid
wait $pid
code=$?
[ $code -eq 130 ] || fail "sampling, SIGINT: exit code $code, expected 130"
has err 'nothing was written'
absent late.npz

# Of a folder, the images that are complete stay, and the rest can be made.
set -m
"$sgm" sample runTERM --out late --n 100000 --batch 2 --steps 50 >out 2>err &
pid=$!
set +m
wait_for late/000003.png
kill -s TERM $pid
wait $pid
code=$?
[ $code -eq 130 ] || fail "sampling, SIGTERM: exit code $code, expected 130"
number=$(find late -name '*.png' | wc -l)
has err "interrupted: $number images are in late; --first $number --n $((100000 - number)) makes the others"
