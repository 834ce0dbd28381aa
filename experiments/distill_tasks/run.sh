#!/usr/bin/env bash
# The study of this folder: bash experiments/distill_tasks/run.sh, with DVSN_DATA set to the folder that holds lspet/ and faces68/.
# Runs go to runs/distill_tasks; RUNS=elsewhere changes that. About 25 minutes of one CPU core and an hour for the teacher of
# landmarks, which experiments/landmarks_faces68/run.sh has trained too: LANDMARKS=its checkpoint saves that.
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs/distill_tasks}
shared=(trainer.precision=32-true data.workers=0 trainer.enable_progress_bar=false)

# Pose: a small HRNet of width 16 teaches one of width 8, 1,800 people of lspet in crops of 64x64.
pose=(experiment=pose_lspet "${shared[@]}" "transform.size=[64,64]" callbacks=none trainer.check_val_every_n_epoch=10)
python -m dvsn.train "${pose[@]}" network.width=16 epochs=20 run_dir="$RUNS/pose_teacher" resume=auto
python -m dvsn.train -m "${pose[@]}" network.width=8 epochs=10 "teacher=$RUNS/pose_teacher/checkpoints/last.ckpt" \
    sweep.skip_finished=true "hydra.sweep.dir=$RUNS/pose" distill=none,fpd seed=0,1 || true
python -m dvsn.report "$RUNS/pose" output="$RUNS/report_pose" && cp "$RUNS/report_pose/report.csv" experiments/distill_tasks/pose.csv

# Landmarks: PFLD 1X teaches PFLD 0.25X on 800 faces.
LANDMARKS=${LANDMARKS:-$RUNS/landmarks_teacher/checkpoints/last.ckpt}
if [ ! -f "$LANDMARKS" ]; then
    python -m dvsn.train experiment=pfld_faces68 trainer.precision=32-true run_dir="$RUNS/landmarks_teacher" resume=auto
fi
faces=(experiment=pfld_faces68 "${shared[@]}" network=pfld_025 data.train_samples=800 data.batch_size=8 ema=null callbacks=none
    trainer.max_epochs=10 trainer.check_val_every_n_epoch=10 "teacher=$LANDMARKS" sweep.skip_finished=true
    "hydra.sweep.dir=$RUNS/landmarks")
python -m dvsn.train -m "${faces[@]}" distill=none seed=0,1 || true
python -m dvsn.train -m "${faces[@]}" distill=bounded_regression distill.bounded_regression.method.distance=l2,l1 seed=0 || true
python -m dvsn.report "$RUNS/landmarks" output="$RUNS/report_landmarks" && cp "$RUNS/report_landmarks/report.csv" experiments/distill_tasks/landmarks.csv

# Generators: a U-Net of width 16 teaches one of width 4 on the embedded street scenes, by the demonstration's recipe of then.
street=(task=pix2pix network=unet_128 network.width=16 network.upsample=resize discriminator=n_layers discriminator.width=16
    discriminator.layers=3 loss.gan_weight=0.5 transform=jitter_256x512 transform.load_height=136 transform.load_width=272
    transform.crop_height=128 transform.crop_width=256 schedule=linear_decay schedule.constant_epochs=2 schedule.decay_epochs=2
    data=street data.workers=1 task.test_norm=batch trainer.max_epochs=3 "${shared[@]}" data.root=data/street)
python -m dvsn.train "${street[@]}" run_dir="$RUNS/generator_teacher" resume=auto
python -m dvsn.train -m "${street[@]}" network.width=4 "teacher=$RUNS/generator_teacher/checkpoints/last.ckpt" \
    sweep.skip_finished=true "hydra.sweep.dir=$RUNS/generator" distill=none,gan_compression,omgd seed=0 || true
python -m dvsn.report "$RUNS/generator" output="$RUNS/report_generator" && cp "$RUNS/report_generator/report.csv" experiments/distill_tasks/generator.csv
