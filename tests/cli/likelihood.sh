make_config
run 0 "$sgm" train tiny.toml --workdir run --threads 2
local quick="--rtol 0.1 --atol 0.1 --eps 0.01 --threads 2" signal
# The eighth image is not reached by whole batches of three.
run 0 "$sgm" likelihood run --data images/ --out whole.jsonl --draws 2 --batch 3 $quick
has out 'bits/dim'
has out 'over 8 images'
[ "$(wc -l <whole.jsonl)" -eq 9 ] || fail "whole.jsonl has not a header and eight lines"
has whole.jsonl '"standard_error":'
has whole.jsonl '"image":7,'
# What was interrupted in the middle of a line, continued.
head -c $(($(head -6 whole.jsonl | wc -c) + 20)) whole.jsonl >cut.jsonl
run 0 "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
same cut.jsonl whole.jsonl
run 0 "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
same cut.jsonl whole.jsonl
bad '--resume' "$sgm" likelihood run --data images --out whole.jsonl
bad 'rtol = 0.1, not 0.2' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 --resume \
  --atol 0.1 --eps 0.01 --rtol 0.2
bad 'more than --n 4' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 --n 4 $quick --resume
{ head -3 whole.jsonl; echo '{"image":2,"ni'; } >cut.jsonl
bad 'line 4' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
echo '{}' >cut.jsonl
bad 'first line' "$sgm" likelihood run --data images --out cut.jsonl --resume
run 0 "$sgm" likelihood run --data images --n 1 --first 7 --exact --solver heun --steps 2 --threads 2 --out exact.jsonl
has exact.jsonl '"trace":"exact"'

bad '--draws' "$sgm" likelihood run --data images --draws 0
bad '--probe' "$sgm" likelihood run --data images --probe cauchy
bad '--exact' "$sgm" likelihood run --data images --exact --probes 2
bad '--data' "$sgm" likelihood run
bad 'gone' "$sgm" likelihood run --data gone
bad 'only 8 images' "$sgm" likelihood run --data images --first 8
bad 'only 3 images' "$sgm" likelihood run --data images --first 5 --n 4
bad 'leapfrog' "$sgm" likelihood run --data images --solver leapfrog
mkdir wide
printf 'P5\n16 8\n255\n%0128d' 0 >wide/a.pgm
bad '--resize' "$sgm" likelihood run --data wide --out wide.jsonl
absent wide.jsonl
bad 'gone' "$sgm" likelihood run --data images --out gone/x.jsonl

set -m
"$sgm" likelihood run --data images --out late.jsonl --batch 1 --draws 60000 >out 2>err &
signal=$!
set +m
wait_for late.jsonl
sleep 0.3
kill -s INT $signal
wait $signal
[ $? -eq 130 ] || fail "likelihood, SIGINT: the exit code is not 130"
has err '0 of 8 images are finished'
[ "$(wc -l <late.jsonl)" -eq 1 ] || fail "late.jsonl is not the header alone"
no_temporaries
