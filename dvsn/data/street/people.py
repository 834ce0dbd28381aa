"""People: limbs between the joints of a skeleton, and where the joints lie in picture pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.faces import head_rotation, paint_head
from dvsn.data.street.light import Color, tint
from dvsn.data.street.walkers import Walker, skeleton

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""The 17 COCO joints in their order; left and right are the person's own."""


@dataclass(frozen=True)
class Figure:
    """What painting a person leaves behind; visibility is settled when the picture is complete."""

    walker: Walker
    instance: int
    joints: np.ndarray  # (17, 2) picture pixels
    owners: tuple[frozenset[int], ...]  # the parts on which each joint is plainly seen
    landmarks: np.ndarray  # (98, 2) picture pixels
    face_parts: frozenset[int]
    angles: tuple[float, float, float]  # of the head against the camera: pitch, yaw, roll in radians
    turned: float  # cosine between gaze and line of sight; 1 looks at us


def paint_person(canvas: Canvas, walker: Walker, label: str = "person") -> Figure:
    """Limbs from far to near, then the head."""
    camera, light = canvas.camera, canvas.light
    instance = canvas.new_instance(label)
    world = skeleton(walker)
    names = list(world)
    flat = dict(zip(names, camera.project(np.stack([world[n] for n in names])), strict=True))
    size = camera.focal / walker.z
    h = walker.stature
    plane = camera.upright(walker.z)

    def new_part() -> int:
        return canvas.new_part(label, plane, "cloth", instance)

    slant = np.array([0.25 if light.sun[0] > 0 else -0.25, -0.1])
    fine = h * size > 28

    def limb(
        part: int,
        ends: Sequence[np.ndarray],
        radii: Sequence[float] | np.ndarray,
        color: Color,
        name: str = "",
    ) -> None:
        part = piece(part, name)
        centers, widths = np.asarray(ends), np.asarray(radii) * (h * size)
        canvas.capsule(centers, widths, color, part)
        if fine:
            canvas.capsule(centers + slant * widths[:, None], widths * 0.62, tint(color, 1.14), part)

    shirt, trousers, skin = (light.shade(c) for c in (walker.shirt, walker.trousers, walker.skin))
    shoe = light.shade((46, 40, 38))
    parts: dict[str, int] = {}
    jobs: list[tuple[float, Callable[[], None]]] = []
    toe = np.array([np.sin(walker.heading), 0.0, np.cos(walker.heading)]) * 0.085 * h
    for name in ("left", "right"):
        parts[f"{name}_leg"], parts[f"{name}_arm"] = new_part(), new_part()

        def leg(name: str = name) -> None:
            part = parts[f"{name}_leg"]
            hip, knee, ankle = (flat[f"{name}_{j}"] for j in ("hip", "knee", "ankle"))
            heel = world[f"{name}_ankle"] - (0, 0.022 * h, 0)
            foot = camera.project(np.stack((heel, heel + toe)))
            limb(part, list(foot), (0.022, 0.017), shoe, "shoes")
            color, covered = (skin, "skin") if walker.skirt else (trousers, "trousers")
            limb(part, (knee, ankle), (0.032, 0.021), color, covered)
            limb(part, (hip, knee), (0.050, 0.036), color, covered)

        def arm(name: str = name) -> None:
            part = parts[f"{name}_arm"]
            shoulder, elbow, wrist = (flat[f"{name}_{j}"] for j in ("shoulder", "elbow", "wrist"))
            limb(part, (elbow, wrist), (0.022, 0.016), tint(shirt, 0.9))
            canvas.dot(wrist + (wrist - elbow) * 0.16, 0.020 * h * size, skin, piece(part, "skin"))
            limb(part, (shoulder, elbow), (0.030, 0.024), tint(shirt, 0.94))

        jobs.append(
            (float(world[f"{name}_knee"][2]) + (1.0 if walker.skirt else 0.0), leg)
        )  # under the skirt
        depth = float(world[f"{name}_elbow"][2] + world[f"{name}_shoulder"][2]) / 2
        jobs.append(
            (depth - 0.06 * h * abs(float(np.cos(walker.heading))), arm)
        )  # beside the body, not behind it
    parts["torso"], parts["head"] = new_part(), new_part()

    def torso() -> None:
        part = parts["torso"]
        shoulders = [flat["left_shoulder"], flat["right_shoulder"]]
        hips = [flat["left_hip"], flat["right_hip"]]
        limb(part, hips, (0.058, 0.058), trousers, "trousers")
        if walker.skirt:
            knees = [flat["left_knee"], flat["right_knee"]]
            hem = [a * 0.25 + b * 0.75 for a, b in zip(hips, knees, strict=True)]
            limb(part, [*hips, *hem], (0.055, 0.055, 0.062, 0.062), trousers, "trousers")
        limb(
            part, [flat["neck"], (shoulders[0] + shoulders[1]) / 2], (0.032, 0.036), tint(skin, 0.85), "skin"
        )
        raised = [p * 0.75 + q * 0.25 for p, q in zip(hips, shoulders, strict=True)]
        inner = [p * 0.86 + flat["neck"] * 0.14 for p in shoulders]
        limb(part, [*inner, *raised], (0.034, 0.034, 0.054, 0.054), shirt)
        if walker.bag:
            strap = (0.012 * h * size, 0.012 * h * size)
            canvas.capsule((shoulders[0], hips[1]), strap, tint(shirt, 0.45), part)

    jobs.append((float(world["neck"][2]), torso))
    for _, job in sorted(jobs, key=lambda each: -each[0]):
        job()
    points, ears, facing = paint_head(canvas, walker, world["head"], parts["head"], skin)
    eyes = points[[97, 96]]  # the person's left eye is on the image right when he looks at us
    joints = np.concatenate((points[54:55], eyes, ears[[1, 0]], np.stack([flat[n] for n in JOINTS[5:]])))
    head = frozenset((parts["head"],))
    hidden: frozenset[int] = frozenset()
    turn = head_rotation(walker)
    gaze_yaw = float(np.arctan2(-facing[0], -facing[2]))  # positive: to the image left
    sees = [turn @ np.array([s, 0.0, 0.25]) for s in (-1.0, 1.0)]  # which eye and ear point at us
    toward = [float(-s[2]) for s in sees]
    owners = [head if facing[2] < 0.15 else hidden]
    owners += [head if facing[2] < 0 and toward[k] > -0.55 else hidden for k in (1, 0)]
    owners += [head if toward[k] > -0.45 and not walker.long_hair else hidden for k in (1, 0)]
    for name in JOINTS[5:]:
        side, joint = name.split("_")
        limb_part = parts[f"{side}_arm" if joint in ("shoulder", "elbow", "wrist") else f"{side}_leg"]
        extra = (parts["torso"],) if joint in ("shoulder", "hip") else ()
        owners.append(frozenset((limb_part, *extra)))
    view = np.array([walker.x + camera.bend * walker.z**2, 0.0, walker.z])
    view /= np.linalg.norm(view)
    angles = (walker.gaze[0], gaze_yaw, walker.gaze[2])
    return Figure(walker, instance, joints, tuple(owners), points, head, angles, float(-(facing @ view)))
