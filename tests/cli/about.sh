run 0 "$sgm" --version
grep -qE '^sgm [0-9]+\.[0-9]+\.[0-9]+$' out || fail "--version printed $(cat out)"
run 0 "$sgm" --help
for command in train sample inpaint colorize verify data info doctor profile; do
  has out "$command"
  run 0 "$sgm" "$command" --help
  [ ! -s err ] || fail "$command --help wrote to stderr"
  run 0 "$sgm" --help
done
run 0 "$sgm" doctor --threads 1
has out 'cpu: 1 threads'
has out 'bf16: '
