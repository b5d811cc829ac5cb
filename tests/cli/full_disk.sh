# A disk that is full, or a shell that limits the size of files.
make_config
if [ -e /dev/full ]; then
  for arguments in --version --help doctor 'train tiny.toml --dry-run'; do
    # shellcheck disable=SC2086
    "$sgm" $arguments >/dev/full 2>err
    code=$?
    [ $code -eq 2 ] || fail "sgm $arguments >/dev/full: exit code $code, expected 2"
    has err 'sgm: error: standard output'
  done
fi
run 0 "$sgm" train tiny.toml --workdir run --steps 2
cp -r run before
limited() { (ulimit -f 8 && exec "$@"); } # 8 KiB
bad 'checkpoint_00000003' limited "$sgm" train tiny.toml --workdir run --resume --steps 3
diff -r run/checkpoints before/checkpoints >/dev/null || fail "the checkpoint of before has changed"
bad 'big.npz' limited "$sgm" sample run --out big.npz --n 200 --steps 2
absent big.npz
bad 'big.png' limited "$sgm" data "$repository/data/twemoji32.zip" --out big.png
absent big.png
run 0 "$sgm" train tiny.toml --workdir run --resume --steps 3
no_temporaries
