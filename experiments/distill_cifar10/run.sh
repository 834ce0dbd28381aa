#!/usr/bin/env bash
# The study of this folder: bash experiments/distill_cifar10/run.sh, with DVSN_DATA set to the folder that holds cifar10/.
# Runs go to runs/distill_cifar10; RUNS=elsewhere changes that. About 80 minutes of one CPU core. A repeated call runs what is
# missing.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/distill_cifar10}
common=(experiment=cifar10_resnet8x4 schedule=cosine trainer.precision=32-true data.workers=0
    trainer.enable_progress_bar=false trainer.check_val_every_n_epoch=5 'data.splits.val="test[:40%]"')

# The teacher: resnet20 on 10,000 pictures.
python -m dvsn.train "${common[@]}" network=resnet20 data.train_samples=10000 trainer.max_epochs=16 \
    run_dir="$RUNS/teacher" resume=auto

# The students: resnet8 on 2,500 pictures, 10 epochs, an initial stage included; measured on 4,000 pictures of test.
student=("${common[@]}" network=resnet8 data.train_samples=2500 data.drop_last=true trainer.max_epochs=10
    "teacher=$RUNS/teacher/checkpoints/last.ckpt" sweep.skip_finished=true)
sweep() { # FOLDER OVERRIDE...
    local folder=$1
    shift
    python -m dvsn.train -m "${student[@]}" "hydra.sweep.dir=$RUNS/students/$folder" "$@" || true
}
sweep fourteen distill=none,kd,fitnet,at,sp,cc,vid,rkd,pkt,nst,crd,ofd seed=0
sweep ab distill=ab distill.ab.method.initial_epochs=3 seed=0
sweep ft distill=ft distill.ft.method.initial_epochs=3 seed=0
sweep fsp distill=fsp distill.fsp.method.initial_epochs=3 seed=0
sweep modern distill=dkd,dist,kd_standardised seed=0
sweep seeds distill=none,kd,sp,crd,dkd seed=1,2
python -m dvsn.report "$RUNS/students" output=experiments/distill_cifar10
