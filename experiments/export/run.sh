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
