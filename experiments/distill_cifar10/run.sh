#!/usr/bin/env bash
# The study of this folder: bash experiments/distill_cifar10/run.sh, with DVSN_DATA set to the folder that holds cifar10/.
# Runs go to runs/distill_cifar10; RUNS=elsewhere changes that. About 100 minutes of one CPU core. A repeated call runs what is
# missing.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/distill_cifar10}
common=(experiment=cifar10_resnet8x4 schedule=cosine trainer.precision=32-true channels_last=true data.workers=0
    trainer.enable_progress_bar=false trainer.check_val_every_n_epoch=5 'data.splits.val="test[:40%]"')

# The teacher: resnet20 on 10,000 pictures.
python -m dvsn.train "${common[@]}" network=resnet20 data.train_samples=10000 trainer.max_epochs=16 \
    run_dir="$RUNS/teacher" resume=auto

# The students: resnet8 on 2,500 pictures, 10 epochs, an initial stage included; measured on 4,000 pictures of test.
student=("${common[@]}" network=resnet8 data.train_samples=2500 data.drop_last=true trainer.max_epochs=10
    "teacher=$RUNS/teacher/checkpoints/last.ckpt" distillation.on_top=false sweep.skip_finished=true)
sweep() { # FOLDER OVERRIDE...
    local folder=$1
    shift
    python -m dvsn.train -m "${student[@]}" "hydra.sweep.dir=$RUNS/students/$folder" "$@" || true
}
every() { # SEED: each method once
    sweep outputs_and_features distill=none,kd,sp,crd,fitnet,at,cc,vid,rkd,pkt,nst,ofd seed="$1"
    sweep narrow distill=dkd distill.dkd.ramp=2 distill.dkd.method.beta=2 seed="$1"
    sweep modern distill=dist,kd_standardised,wttm,mgd,pkd,srrl,simkd seed="$1"
    sweep grown distill=reviewkd distill.reviewkd.ramp=2 seed="$1"
    sweep grown distill=norm distill.norm.ramp=2 seed="$1"
    for staged in ab ft fsp; do
        sweep $staged distill=$staged distill.$staged.method.initial_epochs=3 seed="$1"
    done
}
every 0
for seed in 1 2; do # those of which something is claimed
    sweep outputs_and_features distill=none,kd,sp,crd,fitnet,nst,ofd seed=$seed
    sweep narrow distill=dkd distill.dkd.ramp=2 distill.dkd.method.beta=2 seed=$seed
    sweep modern distill=pkd seed=$seed
done
every 1
every 2
python -m dvsn.report "$RUNS/students" output=experiments/distill_cifar10
