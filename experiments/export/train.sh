#!/usr/bin/env bash
# The three networks that README.md exports, from random weights and trained for minutes only, with one thread each.
# bash experiments/export/train.sh, with DVSN_DATA set to the folder of camvid/, faces68/ and lspet/.
# Runs go to runs/export; RUNS=elsewhere changes that. In the note camvid was stopped in its 5th epoch, lspet in its 16th.
set -eu
RUNS=${RUNS:-runs/export}
export OMP_NUM_THREADS=1
python -m dvsn.train experiment=pidnet_s_camvid_scratch trainer.max_epochs=8 trainer.check_val_every_n_epoch=8 ema=0.97 \
  schedule.warmup_steps=40 transform.crop_height=224 transform.crop_width=288 loss.terms.main.min_kept=32000 \
  loss.terms.main_at_boundary.min_kept=32000 data.workers=0 run_dir="$RUNS/camvid"
python -m dvsn.train experiment=pfld_faces68 network=pfld_025 data.train_samples=800 data.batch_size=8 ema=0.99 \
  trainer.max_epochs=16 trainer.check_val_every_n_epoch=16 trainer.precision=32-true data.workers=0 run_dir="$RUNS/faces68"
python -m dvsn.train experiment=pose_lspet network.width=16 trainer.max_epochs=24 trainer.check_val_every_n_epoch=24 \
  data.workers=0 run_dir="$RUNS/lspet"
