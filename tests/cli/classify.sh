make_config
mkdir -p labelled/dark labelled/light
cp images/[0-3].pgm labelled/dark && cp images/[4-7].pgm labelled/light
sed 's/"images"/"labelled"/' tiny.toml >labelled.toml
printf '[classifier]\nbase_width = 8\nwiden_factor = 1\nblocks = 1\nembedding = 4\n' >>labelled.toml
run 0 "$sgm" classify-train labelled.toml --workdir c --test labelled
has err '% right'
has out 'accuracy on 8 images of labelled'
[ "$(wc -l <out)" -eq 12 ] || fail "not ten parts of the noise levels"
has c/metrics.jsonl '"accuracy":'
run 0 "$sgm" classify-train labelled.toml --workdir c --resume --steps 6
has out 'accuracy on 8 training images'
run 0 "$sgm" classify-train labelled.toml --workdir whole --steps 6
same c/checkpoints/checkpoint_00000006.safetensors whole/checkpoints/checkpoint_00000006.safetensors
bad 'the images have no classes' "$sgm" classify-train tiny.toml --workdir none
bad 'the images have no classes' "$sgm" classify-train labelled.toml --workdir none --test images
absent none/checkpoints
bad 'is of a classifier, not of a score model' "$sgm" train labelled.toml --workdir c --resume

run 0 "$sgm" train tiny.toml --workdir run
run 0 "$sgm" sample run --classifier c --class all --n 3 --out grid.png
has err '4 images' # two rows of two
run 0 "$sgm" sample run --classifier c --class 1 --n 2 --out one.npz
run 0 "$sgm" sample run --classifier c --class 0 --n 2 --out other.npz
run 0 "$sgm" sample run --classifier c --class 0 --n 2 --guidance 0 --out unguided.npz
run 0 "$sgm" sample run --n 2 --out plain.npz
same unguided.npz plain.npz
cmp -s one.npz other.npz && fail "two classes give the same images"
run 0 "$sgm" sample run --classifier c --class 1,0 --sampler ode --rtol 0.1 --atol 0.1 --n 2 --out ode.png
bad 'the classifier knows classes 0 to 1' "$sgm" sample run --classifier c --class 2 --out x.png
bad 'neither a class' "$sgm" sample run --classifier c --class 0, --out x.png
bad 'needs --classifier' "$sgm" sample run --class 0 --out x.png
bad 'needs --class' "$sgm" sample run --classifier c --out x.png
bad 'holds a score model, not a classifier' "$sgm" sample run --classifier run --class 0 --out x.png
bad 'holds a classifier, not a score model' "$sgm" sample c --out x.png
run 0 "$sgm" classify-train labelled.toml --workdir large --set data.image_size=16 --set model.attn_resolutions=[8] --steps 1
bad 'a classifier of 16 x 16 x 1 images' "$sgm" sample run --classifier large --class 0 --out x.png
absent x.png
no_temporaries
