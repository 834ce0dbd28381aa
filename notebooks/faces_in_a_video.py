# ---
# jupyter:
#   kernelspec: {name: python3, display_name: Python 3}
# ---

# %% [markdown]
# # Faces in a video
#
# A network of facial landmarks is trained on drawn faces and follows one through a video, calmed by a One-Euro filter. It takes about
# three minutes on a CPU. Nothing is downloaded. Videos need the extra `video`: `pip install '.[video]'`.

# %%
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np

import dvsn

QUICK = bool(os.environ.get("QUICK"))  # the tests run every cell with few faces and one epoch; such scores mean nothing
FACES, BATCH, EPOCHS, FRAMES = (16, 4, 1, 6) if QUICK else (200, 16, 24, 40)

# %% [markdown]
# ## Faces
#
# dvsn draws street scenes; their faces are written in the layout of WFLW, with 98 points each.

# %%
subprocess.run(
    [
        sys.executable, "-m", "dvsn.data", "faces", "root=faces", f"train={FACES}", f"test={max(FACES // 10, 4)}",
        "height=512", "width=1024",
    ],
    check=True,
)

# %% [markdown]
# ## Train
#
# PFLD at a quarter of its width. WFLW has no validation split, so the run is scored on its test split. 150 steps find the face and
# its outline; eyes and mouth stay rough. Ten times as many epochs are what `python -m dvsn.data init` would propose for so few faces.

# %%
run = dvsn.train(
    "task=landmarks", "network=pfld_025", "data=wflw", "data.root=faces", "loss=wing", "optim=adamw", "optim.lr=4e-3",
    "schedule=cosine", f"data.batch_size={BATCH}", "data.eval_batch_size=16", "data.workers=0", max_epochs=EPOCHS,
    accelerator="cpu", **{"trainer.check_val_every_n_epoch": max(EPOCHS // 2, 1)},
)
print(f"{run.monitor} {run.score:.3f}")

# %% [markdown]
# ## A video
#
# One face of the test split, with a camera that moves a little: 40 frames of 256x256.

# %%
line = next(Path("faces").rglob("list_98pt_rect_attr_test.txt")).read_text().splitlines()[0].split()
points = np.array(line[:196], float).reshape(98, 2)
scene = cv2.imread(str(next(Path("faces").rglob(line[-1]))))
centre, side, size = points.mean(axis=0), 1.3 * np.ptp(points, axis=0).max(), 256

with av.open("face.mp4", "w") as file:
    stream = file.add_stream("h264", rate=20)
    stream.width = stream.height = size
    stream.pix_fmt = "yuv420p"
    for number in range(FRAMES):
        x, y = centre + 0.06 * side * np.array([np.sin(number / 6), np.cos(number / 8)])
        scale = size / side
        matrix = np.array([[scale, 0, size / 2 - scale * x], [0, scale, size / 2 - scale * y]])
        frame = cv2.warpAffine(scene, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
    file.mux(stream.encode())

# %% [markdown]
# ## Follow it
#
# The whole picture shows one face, so `padding=1.0` takes it as the crop. From the command line it is one line; out comes a video with
# the points drawn, and `landmarks.json`.

# %%
subprocess.run(
    [sys.executable, "-m", "dvsn.predict", str(run.best), "face.mp4", "output=seen", "padding=1.0", "smooth=true"],
    check=True,
)
print(sorted(file.name for file in Path("seen").rglob("*") if file.is_file()))

# %% [markdown]
# In Python the results come one by one, while the video is read.

# %%
model = dvsn.load(run.best)
results = list(model.predict("face.mp4", padding=1.0, smooth=True))
path = np.array([result.points[0, :, :2].mean(axis=0) for result in results])
print(len(results), "frames; the face moves by", np.ptp(path, axis=0).round(1), "pixels")
results[-1].plot().save("last.png")
results[-1].plot()
