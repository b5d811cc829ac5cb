make_config
bad 'command' "$sgm"
bad 'frob' "$sgm" frob
bad 'frob' "$sgm" doctor --frob
bad 'frob' "$sgm" doctor "$(printf 'a\nfrob')"
bad 'threads' "$sgm" doctor --threads -1
bad 'threads' "$sgm" doctor --threads 100000
bad 'config' "$sgm" train
bad '--workdir' "$sgm" train tiny.toml
bad 'gone.toml' "$sgm" train gone.toml --workdir run
bad 'model.frob' "$sgm" train tiny.toml --workdir run --set model.frob=1
bad 'frob' "$sgm" train tiny.toml --workdir run --set frob
bad 'training.batch_size' "$sgm" train tiny.toml --workdir run --set training.batch_size=0
bad 'frob' "$sgm" train tiny.toml --workdir run --set sde.name=frob
bad 'frob' "$sgm" train tiny.toml --workdir run --set model.name=frob
bad 'steps' "$sgm" train tiny.toml --workdir run --steps -5
bad 'steps' "$sgm" train tiny.toml --workdir run --steps 0
bad 'gone' "$sgm" train tiny.toml --workdir run --set data.path=gone
bad 'data.path' "$sgm" train tiny.toml --workdir run --set 'data.path='
printf '[model]\nnf = 8\nfrobs = 1\n' >unknown.toml
bad 'unknown.toml:3' "$sgm" train unknown.toml --workdir run
printf '[model\n' >broken.toml
bad 'broken.toml' "$sgm" train broken.toml --workdir run
bad 'cuda' "$sgm" train tiny.toml --workdir run --device cuda
bad 'tpu' "$sgm" train tiny.toml --workdir run --device tpu
bad 'tiny.toml' "$sgm" train tiny.toml --workdir tiny.toml
bad 'gone' "$sgm" verify gone
bad 'tiny.toml' "$sgm" verify tiny.toml
bad 'f16' "$sgm" verify tiny.toml --precision f16
bad 'gone' "$sgm" data gone
bad 'tiny.toml' "$sgm" data tiny.toml --out x.png
bad 'gone' "$sgm" data images --out gone/x.png
bad 'gone' "$sgm" info gone
bad 'images' "$sgm" info images
bad 'tiny.toml' "$sgm" info tiny.toml
absent run
absent x.png
absent preview.png
absent gone
