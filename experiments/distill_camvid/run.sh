#!/usr/bin/env bash
# The study of this folder: bash experiments/distill_camvid/run.sh, with DVSN_DATA set to the folder that holds camvid/.
# Runs go to runs/distill_camvid; RUNS=elsewhere changes that. About 75 minutes of one CPU core. A repeated call runs what is
# missing.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/distill_camvid}
# Everything at half size: crops of 128x160 of pictures scaled by 0.3 to 0.8, scores on whole pictures of 176x240.
common=(experiment=pidnet_s_camvid_scratch data.workers=0 trainer.precision=32-true channels_last=true ema=null
    schedule.warmup_steps=50 callbacks=none trainer.enable_progress_bar=false trainer.check_val_every_n_epoch=10
    transform.low=0.3 transform.high=0.8 transform.crop_height=128 transform.crop_width=160
    'transform.eval=[{_target_: albumentations.Resize, height: 176, width: 240, interpolation: 3, mask_interpolation: 6}]'
    'loss.class_weights=[0.52,0.46,1.27,0.40,0.87,0.65,1.23,1.24,0.79,1.35,1.44]'
    loss.terms.main.min_kept=10000 loss.terms.main_at_boundary.min_kept=10000)

# The teacher: PIDNet-M, 30 epochs.
python -m dvsn.train "${common[@]}" network=pidnet_m trainer.max_epochs=30 run_dir="$RUNS/teacher" resume=auto

# The students: PIDNet-S, 10 epochs, scored on the 101 pictures of val after the last one.
students=("${common[@]}" network=pidnet_s trainer.max_epochs=10 "teacher=$RUNS/teacher/checkpoints/last.ckpt"
    sweep.skip_finished=true "hydra.sweep.dir=$RUNS/students")
python -m dvsn.train -m "${students[@]}" "distill=none,cwd,pixel_kd,at,[pixel_kd,ifvd],[pixel_kd,cirkd]" seed=0 || true
python -m dvsn.report "$RUNS/students" output=experiments/distill_camvid
