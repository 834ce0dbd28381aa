"""PIDNet-S at 360x480 on this machine: how fast, and whether the classes stay the same.

    python experiments/speed/pidnet_inference.py runs/pidnet_s/best.ckpt $DVSN_DATA/camvid > pidnet_inference.md

The goals: 3.5 times the speed of plain eager float32, 5 times with int8, and the class of plain on 99.5 % of the
pixels of real pictures. Random weights answer with ties that rounding decides, so the checkpoint is a trained one;
without it (no arguments) the agreement says little. Folder: `test` is measured on, `train` gives int8 its scales.
The rows of OpenVINO need `pip install 'dvsn[openvino]'`. Run it on a quiet machine.
"""

from __future__ import annotations

import contextlib
import sys

from hydra import compose

from dvsn.benchmark.__main__ import benchmark
from dvsn.benchmark.table import markdown
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir

SAME, MUST, AIM = 0.995, 3.5, 5.0
KEPT = ["keep=[final_layer,dfm]"]  # what int8 leaves alone: the last two modules decide the ties


def main() -> None:
    subject = ["network=pidnet_s", "data.classes=11"]
    if len(sys.argv) == 3:
        checkpoint, camvid = sys.argv[1:]
        subject = [f"checkpoint='{checkpoint}'", f"images='{camvid}/test'", f"calibration='{camvid}/train'"]
    with initialized(conf_dir()):
        config = plain(compose("benchmark", overrides=["size=[360,480]", "seconds=3", *KEPT, *subject]))
    with contextlib.redirect_stdout(sys.stderr):  # its table, for whoever waits
        result = benchmark(config)
    good = [row for row in result["rows"] if "failed" not in row and row["agreement"] >= SAME]
    print("# PIDNet-S at 360x480: the speed of each lever\n")
    print(f"`python experiments/speed/pidnet_inference.py`, {result['date']}\n")
    print(markdown(result))
    for protocol in config["protocols"]:
        best = max((row for row in good if row["protocol"] == protocol), key=lambda row: row["speed_up"])
        reached = (
            "the aim" if best["speed_up"] >= AIM else "the bar" if best["speed_up"] >= MUST else "neither"
        )
        print(
            f"{protocol}: the fastest with the same class on {SAME:.1%} of the pixels is {best['variant']}, "
            f"{best['speed_up']:.2f} times plain (bar {MUST}, aim {AIM}: {reached})."
        )


if __name__ == "__main__":
    main()
