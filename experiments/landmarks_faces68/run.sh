#!/usr/bin/env bash
# The study of this folder: bash experiments/landmarks_faces68/run.sh, with DVSN_DATA set to the folder that holds faces68/.
# Runs go to runs/landmarks_faces68; RUNS=elsewhere changes that. About 100 minutes of one CPU core, or minutes of a GPU.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/landmarks_faces68}

# The recipe: PFLD 1X.
python -m dvsn.train experiment=pfld_faces68 trainer.precision=32-true run_dir="$RUNS/recipe" resume=auto

# What each part is worth: PFLD 0.25X on the first 800 training faces, 2,000 steps of 8, no average of the weights (it would
# still hold the random start), all else as the recipe.
variant() { # NAME OVERRIDE...
    local name=$1
    shift
    python -m dvsn.train experiment=pfld_faces68 network=pfld_025 data.train_samples=800 data.batch_size=8 ema=null \
        trainer.max_epochs=20 trainer.precision=32-true trainer.check_val_every_n_epoch=20 run_dir="$RUNS/$name" \
        name="faces68_$name" resume=auto "$@"
}
plain='transform.train={zoom:0.0,shift:0.0,rotation:0.0,flip:0.0,occlusion:0.0,steps:[]}'
variant base
variant l2 loss=landmarks_l2
variant no_augmentation "$plain"
variant l1 loss=landmarks_l1
variant no_auxiliary network.auxiliary=false
variant pfld_robust loss=pfld loss.angle_weight=1.0
variant soft_wing loss=soft_wing
variant smooth_l1 loss=landmarks_smooth_l1
python experiments/landmarks_faces68/compare.py "$RUNS"
