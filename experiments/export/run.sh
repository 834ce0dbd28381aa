#!/usr/bin/env bash
# Exports the checkpoints of train.sh in fp32 and int8 and measures all three by the same command.
set -eu
RUNS=${RUNS:-runs/export}
export OMP_NUM_THREADS=1
measure() { # NAME SPLIT OPTION...
  local last=$RUNS/$1/checkpoints/last.ckpt name=$1 split=$2
  shift 2
  python -m dvsn.export "$last" output="$RUNS/$name.onnx"
  python -m dvsn.export "$last" output="$RUNS/${name}_int8.onnx" precision=int8 "$@"
  for file in "$last" "$RUNS/$name.onnx" "$RUNS/${name}_int8.onnx"; do
    python -m dvsn.evaluate checkpoint="$file" split="$split" output="$RUNS/evaluation/$name/$(basename "$file")"
  done
}
measure camvid test samples=32 scored=26 equal=0.99
measure faces68 test samples=64 drop=0.05
measure lspet val samples=64 drop=0.3
# 8 bits with fine-tuning. The PIDNet-S and the PFLD of that section of the note were trained apart: see there.
tune() { # NAME OPTION...
  local last=$RUNS/$1/checkpoints/last.ckpt name=$1
  shift
  python -m dvsn.export "$last" output="$RUNS/${name}_tuned.onnx" precision=int8 "$@"
}
tune camvid samples=32 scored=26 equal=0.99 finetune=3 finetune.lr=0.0001
tune faces68 samples=64 scored=128 drop=0.05 equal=0.01 finetune=2 finetune.lr=0.0001
