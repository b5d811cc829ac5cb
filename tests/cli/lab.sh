cat >two.toml <<'TOML'
kind = "gaussian_mixture"
weights = [0.8, 0.2]
means = [[2.0, 2.0], [-2.0, -2.0]]
stds = [0.5, 0.5]
range = [-4.0, 4.0]
TOML
local figure
run 0 "$sgm" lab two.toml --sde vpsde --n 200 --steps 40 --seed 3 --out a \
  --figure density --figure score --figure forward --figure samplers
cp out table
for figure in density score forward samplers; do
  [ "$(head -c 4 "a/$figure.png" | tail -c 3)" = PNG ] || fail "a/$figure.png is no PNG"
  grep -q "^$figure" table || fail "the table lacks $figure"
done
[ -s a/density.npz ] || fail 'no samples'
has a/results.json '"distance of the samples"'
run 0 "$sgm" lab two.toml --sde vpsde --n 200 --steps 40 --seed 3 --out b --figure density
same a/density.png b/density.png
same a/density.npz b/density.npz

# A line, and a network in the place of the score.
printf 'kind = "gaussian_mixture"\nweights = [0.5, 0.5]\nmeans = [[-1.0], [1.0]]\nstds = [0.3, 0.3]\n' >line.toml
run 0 "$sgm" lab line.toml --sde subvpsde --score fit --loss ssm_vr --n 100 --steps 30 --rtol 1e-2 --atol 1e-2 \
  --set training.n_iters=20 --set training.batch_size=32 --set model.hidden=[8] --set model.nf=4 --out c \
  --figure score --figure reverse --figure likelihood
has out 'relative error of the score'
[ "$(head -c 6 c/reverse.gif)" = GIF89a ] || fail 'c/reverse.gif is no GIF'

sed 's/0.2\]/0.3]/' two.toml >sum.toml
bad 'weights' "$sgm" lab sum.toml --out x
sed 's/weights/wieghts/' two.toml >key.toml
bad 'nearest known key is weights' "$sgm" lab key.toml --out x
bad 'gone.toml' "$sgm" lab gone.toml --out x
bad 'frob' "$sgm" lab two.toml --out x --figure frob
bad 'frob' "$sgm" lab two.toml --out x --sde frob
bad 'frob' "$sgm" lab two.toml --out x --score frob
bad 'frob' "$sgm" lab two.toml --out x --sampler frob
bad 'frob' "$sgm" lab two.toml --out x --score fit --loss frob
bad '--score fit' "$sgm" lab two.toml --out x --loss ssm
bad 'sde.frob' "$sgm" lab two.toml --out x --set sde.frob=1
bad '--n' "$sgm" lab two.toml --out x --n 1
bad 'gone/x' "$sgm" lab two.toml --out gone/x
bad 'two.toml' "$sgm" lab two.toml --out two.toml
absent x
absent gone
no_temporaries
