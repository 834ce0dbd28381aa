#!/usr/bin/env bash
# Crops of CamVid, a network that names them, its score on test and its picture. DVSN_DATA holds camvid/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python "$here/make.py" "$DVSN_DATA/camvid" things 32
python "$here/make.py" "$DVSN_DATA/camvid" shown 128
python -m dvsn.data init things name=things minutes=3
python -m dvsn.train --config-dir my_conf experiment=things hydra.run.dir=runs/things/a
python -m dvsn.evaluate checkpoint=runs/things/a/checkpoints/best.ckpt split=test
python "$here/cards.py" runs/things/a/checkpoints/best.ckpt shown/test test.jpg
