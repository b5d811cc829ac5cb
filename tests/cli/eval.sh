make_config
run 0 "$sgm" train tiny.toml --workdir run
run 0 "$sgm" eval run --data images --n 6 --levels 4 --out a.json --plot a.png
cp out table
[ "$(grep -c '^ *[01]\.' table)" -eq 4 ] || fail "not four levels: $(cat table)"
has table 'loss: '
has a.json '"denoising_error"'
[ "$(head -c 4 a.png | tail -c 3)" = PNG ] || fail "a.png is no PNG"
run 0 "$sgm" eval run --data images --n 6 --levels 4 --batch 4
same out table
run 0 "$sgm" eval run --data images --n 6 --levels 4 --seed 1
cmp -s out table && fail "two seeds give the same losses"
bad 'has only 8 images' "$sgm" eval run --data images --n 9 --out x.json
bad 'only 5 images from number 3' "$sgm" eval run --data images --n 6 --first 3 --out x.json
bad '--levels' "$sgm" eval run --data images --levels 0
bad 'gone' "$sgm" eval run --data gone
bad 'gone' "$sgm" eval gone --data images
bad 'gone/x.json' "$sgm" eval run --data images --out gone/x.json
bad 'gone/x.png' "$sgm" eval run --data images --plot gone/x.png
absent x.json
no_temporaries
