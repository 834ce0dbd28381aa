#!/usr/bin/env bash
# The runs of this study, on CamVid in SegNet's copy (480x360, JPEG): run.sh paper | post | unit.
# One thread each, so that two of them share two cores. Each is run in three legs, and the checkpoint between two legs
# is kept for the pictures; a run continued from a checkpoint is the run that was not stopped, bit for bit.
set -euo pipefail
export OMP_NUM_THREADS=1
run=$1
shared="data=camvid optim.fused=true data.workers=0 trainer.limit_val_batches=12 trainer.log_every_n_steps=10"
case $run in
  # The paper's recipe: full width, 256x256, batch 1; 1, 5 and 8 epochs of 367 pictures.
  paper) recipe="experiment=pix2pix_paper"; legs="367 1835 2936" ;;
  # The same with the blog recipe's value range, one epoch.
  unit) recipe="experiment=pix2pix_paper task.value_range=unit"; legs="367" ;;
  # The blog's recipe: full width, batch 16, two generator forwards; at 256x256 instead of 256x512, so that the scores
  # compare. 2, 8 and 12 epochs of 23 batches.
  post) recipe="experiment=pix2pix_cityscapes_post transform.crop_width=256"; legs="46 184 276" ;;
esac
folder=runs/camvid_$run
stage=0
for steps in $legs; do
  resume=$([ -f "$folder/checkpoints/last.ckpt" ] && echo "$folder/checkpoints/last.ckpt" || echo null)
  python -m dvsn.train $recipe $shared name=camvid_$run hydra.run.dir=$folder trainer.max_steps=$steps resume=$resume
  stage=$((stage + 1))
  cp $folder/checkpoints/last.ckpt $folder/stage$stage.ckpt
  python -m dvsn.evaluate checkpoint=$folder/stage$stage.ckpt split=test
done
