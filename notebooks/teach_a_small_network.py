# ---
# jupyter:
#   kernelspec: {name: python3, display_name: Python 3}
# ---

# %% [markdown]
# # Teach a small network
#
# A larger network is trained, then teaches a small one: knowledge distillation. It takes about three minutes on a CPU. The pictures are
# drawn here, so that nothing is downloaded.

# %%
import os
from pathlib import Path

import cv2
import numpy as np

import dvsn

QUICK = bool(os.environ.get("QUICK"))  # the tests run every cell with few pictures and one epoch; such scores mean nothing
PICTURES = {"train": 16, "val": 4} if QUICK else {"train": 120, "val": 60}
EPOCHS = {"teacher": 1, "student": 1} if QUICK else {"teacher": 12, "student": 6}

# %% [markdown]
# ## Pictures of three shapes
#
# A folder a class, as `data=imagefolder` reads them. They are noisy, so that the small network has something to learn from the other.

# %%
rng = np.random.default_rng(0)


def draw(shape):
    picture = rng.normal(110, 45, (32, 32, 3))
    x, y = (int(value) for value in rng.uniform(12, 20, 2))
    side, colour = int(rng.uniform(5, 9)), rng.uniform(120, 220, 3).tolist()
    if shape == "circle":
        cv2.circle(picture, (x, y), side, colour, 2)
    elif shape == "square":
        cv2.rectangle(picture, (x - side, y - side), (x + side, y + side), colour, 2)
    else:
        corners = np.array([[x, y - side], [x - side, y + side], [x + side, y + side]])
        cv2.polylines(picture, [corners], True, colour, 2)
    return np.clip(picture, 0, 255).astype(np.uint8)


for split, count in PICTURES.items():
    for shape in ("circle", "square", "triangle"):
        folder = Path("shapes", split, shape)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            cv2.imwrite(str(folder / f"{number}.png"), draw(shape))

# %% [markdown]
# ## The teacher
#
# `shared` is what all trainings have in common.

# %%
shared = [
    "task=classification",
    "data=imagefolder",
    "data.root=shapes",
    "data.classes=3",
    "transform=cifar",
    "data.batch_size=32",
    "data.eval_batch_size=32",
    "data.workers=0",
    "optim.lr=0.05",
]
teacher = dvsn.train(*shared, "network=resnet20", max_epochs=EPOCHS["teacher"], accelerator="cpu")
print("teacher", teacher.score)

# %% [markdown]
# ## The student, alone and taught
#
# `distill=kd` adds the teacher's softened answers to the labels. Any of the 42 methods is one word, and several are a list:
# `distill=[kd,at]`. One run each is no proof: repeat it with several seeds before you believe a difference.

# %%
alone = dvsn.train(*shared, "network=resnet8", max_epochs=EPOCHS["student"], accelerator="cpu")
taught = dvsn.train(
    *shared, "network=resnet8", "distill=kd", f"teacher={teacher.best}", max_epochs=EPOCHS["student"],
    accelerator="cpu",
)
for name, run in (("teacher", teacher), ("student alone", alone), ("student taught", taught)):
    print(f"{name:15} top1 {run.score:.3f}, {run.result['parameters']:,} parameters")

# %% [markdown]
# ## What was learned
#
# The student's checkpoint needs no teacher.

# %%
model = dvsn.load(taught.best)
result = model.predict("shapes/val/circle/0.png")
print([(ranked.name, round(ranked.score, 3)) for ranked in result.classes])
result.plot()
