run 0 "$sgm" prove --only strong_orders --only solvers --out proof.json --plot orders.png
has out '| solver order: VP, rk45'
has err '0 failed'
has proof.json '"passes": true'
[ "$(head -c 4 orders.png | tail -c 3)" = PNG ] || fail "orders.png is no PNG file"
bad "'solver' is unknown" "$sgm" prove --only solver
bad 'measures an order' "$sgm" prove --only samplers --plot x.png
bad 'no_such_folder' "$sgm" prove --out no_such_folder/proof.json
no_temporaries
