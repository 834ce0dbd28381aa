#!/usr/bin/env bash
# The auxiliary losses switched off in turn, and DDRNet-23-slim beside PIDNet-S: 6 epochs each on crops of 224x288.
set -euo pipefail
export OMP_NUM_THREADS=1
shared="experiment=pidnet_s_camvid_scratch data.workers=0 ema=null schedule.warmup_steps=50 trainer.max_epochs=6
  trainer.check_val_every_n_epoch=6 transform.crop_height=224 transform.crop_width=288 callbacks=none
  loss.terms.main.min_kept=32000"
boundary="loss.terms.main_at_boundary.min_kept=32000"
everything="loss.terms.main.threshold=1.0 loss.terms.main.min_kept=100000000"   # OHEM that keeps every pixel
weights="loss.class_weights=[0.274,0.210,1.607,0.163,0.752,0.426,1.512,1.534,0.624,1.813,2.085]"

run() {
  name=$1; shift
  python -m dvsn.train $shared name=$name hydra.run.dir=runs/$name "$@"
  python -m dvsn.evaluate checkpoint=runs/$name/checkpoints/last.ckpt split=test pictures=1
}

first_half() {
  run full $boundary
  run without_l1_l3 loss.terms.boundary=null loss.terms.main_at_boundary=null
  run without_ohem $everything loss.terms.main_at_boundary.threshold=1.0 loss.terms.main_at_boundary.min_kept=100000000
  run ddrnet_23_slim network=ddrnet_23_slim loss=ddrnet "$weights" loss.terms.auxiliary.min_kept=32000 \
    loss.terms.boundary=null loss.terms.main_at_boundary=null
}

second_half() {
  run full_seed_1 seed=1 $boundary
  run without_l3 loss.terms.main_at_boundary=null
  run without_l0 loss.terms.auxiliary=null $boundary
  run only_cross_entropy $everything loss.terms.boundary=null loss.terms.main_at_boundary=null loss.terms.auxiliary=null
}

first_half &
second_half &
wait
