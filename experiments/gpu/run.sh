#!/usr/bin/env bash
# Everything once on this machine's GPU, within ten minutes: bash experiments/gpu/run.sh
# One Markdown table is written to experiments/gpu/gpu.md; OUTPUT=elsewhere.md, RUNS=folder of the runs (runs/gpu).
# DEVICE=cpu does the same on the CPU, with small pictures and without what needs a GPU.
set -eu
cd "$(dirname "$0")/../.."
DEVICE=${DEVICE:-cuda} RUNS=${RUNS:-runs/gpu} OUTPUT=${OUTPUT:-experiments/gpu/gpu.md}
exec "${PYTHON:-python}" -m experiments.gpu.run --device "$DEVICE" --runs "$RUNS" --output "$OUTPUT"
