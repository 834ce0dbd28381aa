#!/usr/bin/env bash
# PIDNet-S on CamVid 480x360 without pretraining, and its scores. Two cores with bf16 units: about an hour when they are free.
set -euo pipefail
export OMP_NUM_THREADS=2
run=runs/camvid
python -m dvsn.train experiment=pidnet_s_camvid_scratch data.workers=1 name=camvid hydra.run.dir=$run checkpoint.every_n_steps=200
for split in test val; do
  python -m dvsn.evaluate checkpoint=$run/checkpoints/last.ckpt split=$split metrics.boundary_score=true
done
python -m dvsn.evaluate checkpoint=$run/checkpoints/last.ckpt split=test output=$run/evaluation/views \
  "inference.scales=[0.75,1,1.25,1.5]" inference.flip=true
