#!/usr/bin/env bash
# PIDNet-S on CamVid 480x360 without pretraining, in two phases, and its scores.
set -euo pipefail
export OMP_NUM_THREADS=2
# 100 epochs with ENet's class weights, then 12 with their square roots, which stop the rare classes from spreading.
python -m dvsn.train experiment=pidnet_s_camvid_scratch data.workers=1 name=camvid hydra.run.dir=runs/camvid
python -m dvsn.train experiment=pidnet_s_camvid_scratch data.workers=0 name=camvid_roots hydra.run.dir=runs/camvid_roots \
  weights=runs/camvid/checkpoints/last.ckpt "loss.class_weights=[0.52,0.46,1.27,0.40,0.87,0.65,1.23,1.24,0.79,1.35,1.44]" \
  optim.lr=0.0004 schedule.warmup_steps=20 ema=0.99 trainer.max_epochs=12 trainer.check_val_every_n_epoch=6 seed=1
# The same second phase without weights, for comparison: loss.class_weights=null
for run in camvid camvid_roots; do
  for split in test val; do
    python -m dvsn.evaluate checkpoint=runs/$run/checkpoints/last.ckpt split=$split metrics.boundary_score=true
  done
  python -m dvsn.evaluate checkpoint=runs/$run/checkpoints/last.ckpt split=test output=runs/$run/evaluation/views \
    "inference.scales=[0.75,1,1.25,1.5]" inference.flip=true
done
