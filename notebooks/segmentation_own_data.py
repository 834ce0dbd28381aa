# ---
# jupyter:
#   kernelspec: {name: python3, display_name: Python 3}
# ---

# %% [markdown]
# # Segmentation on data of your own
#
# From a folder of photos and masks to a trained network, its score and its pictures, in about a minute on a CPU. The folder is drawn
# here, so that nothing is downloaded; put the path of your own in its place.

# %%
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import dvsn

QUICK = bool(os.environ.get("QUICK"))  # the tests run every cell with few pictures and one epoch; such scores mean nothing
PICTURES, EPOCHS = (12, 1) if QUICK else (80, 25)

# %% [markdown]
# ## A folder
#
# Coins on a table: photos in `coins/photos`, masks of 0 and 255 in `coins/masks`. There is no split and no list.

# %%
rng = np.random.default_rng(0)
for part in ("photos", "masks"):
    Path("coins", part).mkdir(parents=True, exist_ok=True)
for number in range(PICTURES):
    photo = rng.normal(rng.uniform(60, 110), 12, (96, 128, 3))
    mask = np.zeros((96, 128), np.uint8)
    for _ in range(rng.integers(1, 6)):
        x, y, radius = (int(value) for value in (rng.uniform(12, 116), rng.uniform(12, 84), rng.uniform(7, 15)))
        colour = np.array([60, 150, 190]) + rng.normal(0, 20, 3)
        cv2.circle(photo, (x, y), radius, colour.tolist(), -1)
        cv2.circle(photo, (x, y), radius, (colour * 0.7).tolist(), 2)
        cv2.circle(mask, (x, y), radius, 255, -1)
    cv2.imwrite(f"coins/photos/{number:03d}.jpg", np.clip(photo, 0, 255).astype(np.uint8))
    cv2.imwrite(f"coins/masks/{number:03d}.png", mask)

# %% [markdown]
# ## Look at it
#
# `data init` says what it found, parts it into train and val by a seed, and writes two short YAML files.

# %%
done = subprocess.run(
    [sys.executable, "-m", "dvsn.data", "init", "coins", "name=coins"], capture_output=True, text=True
)
print(done.stdout + done.stderr)
print(Path("my_conf/data/coins.yaml").read_text())

# %% [markdown]
# ## Train
#
# The same recipe as the command line, with a narrow network and fewer epochs than it proposes: so it takes half a minute of CPU time.

# %%
run = dvsn.train(
    "experiment=coins", "network.width=16", "trainer.check_val_every_n_epoch=1", config_dir="my_conf",
    max_epochs=EPOCHS, lr=2e-3, workers=0, accelerator="cpu",
)
print(run.folder, run.monitor, run.score)

# %% [markdown]
# ## Measure

# %%
scores = dvsn.evaluate(run.best, split="val", accelerator="cpu")
print({name: round(value, 3) for name, value in scores.items()})

# %% [markdown]
# ## Use
#
# A result holds numpy arrays: `ids` is the class of each pixel, `names` what they are called.

# %%
model = dvsn.load(run.best)
result = model.predict("coins/photos/000.jpg")
share = {name: float((result.ids == number).mean()) for number, name in enumerate(result.names)}
print(share)
result.plot().save("seen.png")
result.plot()
