#!/usr/bin/env bash
# The runs of this study, on CamVid in SegNet's copy (480x360, JPEG). The study stopped them by SIGTERM after about
# 1,000 pictures; trainer.max_steps does the same. About 13 minutes of one core each.
set -euo pipefail
export OMP_NUM_THREADS=1
shared="data=camvid network.width=32 discriminator.width=32 optim.fused=true data.workers=0
  trainer.limit_val_batches=12 trainer.log_every_n_steps=1"

# The paper's recipe, batch 1.
python -m dvsn.train experiment=pix2pix_paper $shared name=camvid_paper hydra.run.dir=runs/camvid_paper \
  checkpoint.every_n_steps=50 trainer.max_steps=996
# The same with the blog recipe's value range.
python -m dvsn.train experiment=pix2pix_paper $shared name=camvid_unit hydra.run.dir=runs/camvid_unit \
  checkpoint.every_n_steps=50 trainer.max_steps=150 task.value_range=unit
# The blog recipe, batch 16, at 256x256 instead of 256x512, so that the scores compare.
python -m dvsn.train experiment=pix2pix_cityscapes_post $shared name=camvid_post hydra.run.dir=runs/camvid_post \
  checkpoint.every_n_steps=3 trainer.max_steps=60 transform.crop_width=256

for run in paper unit post; do
  python -m dvsn.evaluate checkpoint=runs/camvid_$run/checkpoints/last.ckpt split=test
done
