#!/usr/bin/env bash
# The study of this folder: bash experiments/pose_lspet/run.sh, with DVSN_DATA set to the folder that holds lspet/.
# Runs go to runs/pose_lspet; RUNS=elsewhere changes that. About 3 hours of two CPU cores, or minutes of a GPU.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/pose_lspet}

# The recipe.
python -m dvsn.train experiment=pose_lspet run_dir="$RUNS/recipe" resume=auto

# Three ways of coding, at one small budget: 40 epochs of the narrow network, all else as the recipe.
for codec in msra dark udp; do
    python -m dvsn.train experiment=pose_lspet codec=$codec network.width=16 trainer.max_epochs=40 \
        run_dir="$RUNS/$codec" name=pose_lspet_$codec resume=auto
done
python experiments/pose_lspet/compare.py "$RUNS"
