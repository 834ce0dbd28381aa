"""Cars, vans and buses: panels in a vehicle's own frame (right, up, forward; metres), painted from far to
near.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from dvsn.data.street.canvas import SUBPIXEL, Canvas, piece, to_fixed
from dvsn.data.street.geometry import NEAR
from dvsn.data.street.light import Color, Light, mix, tint

# Label; outline (z, height) from rear bumper over the roof to front bumper; half widths; wheel's radius.
VEHICLES: dict[str, tuple[str, tuple[tuple[float, float], ...], float, float, float]] = {
    "sedan": ("car", ((-2.22, 0.30), (-2.28, 0.62), (-2.20, 0.96), (-1.55, 1.00), (-0.85, 1.42), (0.35, 1.45),
                      (1.10, 1.00), (2.05, 0.82), (2.26, 0.58), (2.22, 0.28)), 0.90, 0.66, 0.33),
    "hatch": ("car", ((-1.90, 0.30), (-1.97, 0.64), (-1.93, 0.98), (-1.80, 1.02), (-1.45, 1.47), (0.25, 1.51),
                      (1.00, 1.03), (1.80, 0.84), (2.00, 0.58), (1.96, 0.28)), 0.87, 0.67, 0.31),
    "suv": ("car", ((-2.15, 0.38), (-2.22, 0.75), (-2.18, 1.12), (-2.08, 1.16), (-1.75, 1.66), (0.35, 1.70),
                    (1.15, 1.17), (2.10, 1.00), (2.28, 0.70), (2.22, 0.36)), 0.95, 0.74, 0.38),
    "van": ("car", ((-2.35, 0.34), (-2.42, 0.70), (-2.40, 1.10), (-2.38, 1.14), (-2.25, 1.92), (1.15, 1.98),
                    (1.95, 1.16), (2.35, 0.98), (2.48, 0.62), (2.44, 0.32)), 0.97, 0.84, 0.35),
    "bus": ("bus", ((-5.4, 0.40), (-5.5, 0.80), (-5.5, 1.20), (-5.48, 1.24), (-5.4, 3.0), (5.2, 3.05),
                    (5.45, 1.20), (5.5, 1.10), (5.52, 0.80), (5.45, 0.36)), 1.25, 1.18, 0.48),
}  # fmt: skip
PAINTS: tuple[Color, ...] = (
    (196, 200, 204), (228, 230, 232), (40, 42, 46), (96, 100, 106), (176, 30, 34), (34, 66, 132),
    (22, 40, 82), (126, 34, 40), (60, 98, 84), (206, 186, 150), (224, 164, 40), (100, 146, 186),
    (72, 66, 62),
)  # fmt: skip
LEFT, RIGHT = 50, 51
PIECE_OF_ROLE = {
    "dark": "dark", "grille": "dark", "under": "dark", "arch": "dark", "pane": "glass", "windscreen": "glass",
    "gleam": "glass", "headlamp": "headlamp", "headlamp_rim": "headlamp", "tail": "tail lamp",
    "tail_rim": "tail lamp", "plate": "plate", "rubber": "wheel", "rim": "rim", "spokes": "rim",
}  # fmt: skip
"""The piece that a panel belongs to; the others are painted metal."""
BODY_TONES = {"paint": (1.0, 0.0), "dark": (0.55, 0.0), "crease": (1.12, 6.0), "line": (0.6, 0.0)}


class Panel(NamedTuple):
    """A piece of a vehicle: its corners are `mesh.points[first:last]`."""

    first: int
    last: int
    role: str  # decides the colour
    shell: int  # 0 wheels behind, 1.. strips across the width, 50 and 51 flanks; what hides together
    sharp: float  # smallest scale, in pixels per metre, at which it is drawn


class Mesh(NamedTuple):
    """A vehicle in its own frame (right, up, forward), metres. Normals and middles are per shell."""

    points: np.ndarray  # (n, 3)
    panels: tuple[Panel, ...]
    normals: np.ndarray  # (52, 3)
    middles: np.ndarray  # (52, 3)


@lru_cache(maxsize=8)
def vehicle_mesh(kind: str) -> Mesh:
    """An outline drawn across its width, with glass, lamps, wheels and door lines."""
    _, outline, body, roof, wheel = VEHICLES[kind]
    profile = np.asarray(outline)
    belt, low = float(profile[3, 1]), float(profile[:, 1].min())
    half = np.where(profile[:, 1] > belt + 0.1, roof, body)
    clouds: list[np.ndarray] = []
    panels: list[Panel] = []
    normals, middles = np.zeros((52, 3)), np.zeros((52, 3))

    def add(
        points: Sequence[Sequence[float]] | np.ndarray, role: str, shell: int, sharp: float = 0.0
    ) -> None:
        first = sum(len(each) for each in clouds)
        clouds.append(np.asarray(points, np.float64))
        panels.append(Panel(first, first + len(points), role, shell, sharp))

    turn = np.arange(20) * (2 * np.pi / 20)
    axles = (profile[1, 0] * 0.62, profile[-2, 0] * 0.62)

    def tyre(x: float, z: float, scale: float) -> np.ndarray:
        return np.stack(
            (np.full(20, x), wheel * (1 + scale * np.sin(turn)), z + wheel * scale * np.cos(turn)), axis=-1
        )

    # behind everything: the dark underside and the tyres as solid drums
    add([[s * body * 0.9, h, z] for s in (-1, 1) for h in (wheel * 0.6, 0.6) for z in axles], "under", 0)
    for side in (-1, 1):
        for z in axles:
            drum = np.concatenate((tyre(side * body * 0.97, z, 1.0), tyre(side * body * 0.72, z, 1.0)))
            add(drum, "rubber", 0)
    for i in range(len(profile) - 1):
        (z0, h0), (z1, h1), a, b = profile[i], profile[i + 1], half[i], half[i + 1]
        quad = np.array([[-a, h0, z0], [a, h0, z0], [b, h1, z1], [-b, h1, z1]])
        shell = i + 1
        n = np.array([0.0, z1 - z0, h0 - h1])
        normals[shell], middles[shell] = n / np.linalg.norm(n), quad.mean(axis=0)
        add(quad, "dark" if i in (0, 8) else "paint", shell)
        bottom, top = (quad[:2], quad[[3, 2]]) if h1 > h0 else (quad[[3, 2]], quad[:2])

        def at(u: float, v: float, bottom: np.ndarray = bottom, top: np.ndarray = top) -> np.ndarray:
            return (bottom[0] * (1 - u) + bottom[1] * u) * (1 - v) + (top[0] * (1 - u) + top[1] * u) * v

        def box(
            left: float, below: float, right: float, above: float, at: Callable[..., np.ndarray] = at
        ) -> np.ndarray:
            return np.stack((at(left, below), at(right, below), at(right, above), at(left, above)))

        if i in (3, 5):
            add(box(0.05, 0.08, 0.95, 0.9), "windscreen" if i == 5 else "pane", shell)
            add(box(0.05, 0.62, 0.95, 0.9), "gleam", shell, 14)
        if i in (1, 7):
            lamp = "headlamp" if i == 7 else "tail"
            for left in (0.02, 0.76):
                add(box(left, 0.35, left + 0.22, 0.95), lamp + "_rim", shell, 8)
                add(box(left + 0.03, 0.45, left + 0.19, 0.88), lamp, shell)
            if i == 7:
                add(box(0.3, 0.1, 0.7, 0.75), "grille", shell)
            add(box(0.38, 0.08, 0.62, 0.34), "plate", shell, 8)
    for side, shell in ((-1, LEFT), (1, RIGHT)):
        normals[shell], middles[shell] = (side, 0, 0), (side * body, 0.8, 0.0)

        def flank(points: Sequence[Sequence[float]] | np.ndarray, side: int = side) -> np.ndarray:
            flat = np.asarray(points, np.float64)
            lean = np.clip((flat[:, 1] - belt) / (profile[:, 1].max() - belt), 0, 1)
            return np.stack((side * (body + (roof - body) * lean), flat[:, 1], flat[:, 0]), axis=-1)

        rear, front = profile[0, 0], profile[-1, 0]
        add(flank(profile), "paint", shell)
        add(flank([[rear, low], [front, low], [front, low + 0.22], [rear, low + 0.22]]), "dark", shell)
        add(
            flank([[rear, belt - 0.22], [front, belt - 0.34], [front, belt - 0.28], [rear, belt - 0.16]]),
            "crease",
            shell,
            10,
        )
        cabin = profile[3:7]
        pane = cabin.mean(axis=0) + (cabin - cabin.mean(axis=0)) * np.array([0.9, 0.72])
        add(flank(pane), "pane", shell)
        add(flank(pane * (1, 0.45) + pane[[1, 0, 3, 2]] * (0, 0.55)), "gleam", shell, 14)
        for share in (0.5,) if kind != "bus" else (0.12, 0.25, 0.38, 0.5, 0.62, 0.75, 0.88):
            z = pane[0, 0] + (pane[3, 0] - pane[0, 0]) * share
            top = pane[:, 1].max()
            add(
                flank([[z - 0.05, belt], [z + 0.05, belt], [z + 0.05, top], [z - 0.05, top]]),
                "paint",
                shell,
                10,
            )
        for z in (-0.75, 0.32, 1.05) if kind != "bus" else (4.2, -1.0):
            add(
                flank([[z, low + 0.2], [z + 0.03, low + 0.2], [z + 0.03, belt], [z, belt]]), "line", shell, 22
            )
        for z in (-0.55, 0.55) if kind != "bus" else ():
            add(
                flank([[z, belt - 0.14], [z + 0.2, belt - 0.14], [z + 0.2, belt - 0.09], [z, belt - 0.09]]),
                "line",
                shell,
                22,
            )
        for z in axles:
            arch = tyre(side * body, z, 1.2)
            arch[:, 1] = np.maximum(arch[:, 1], low)  # it stops above the tyre's foot
            add(arch, "arch", shell)
            add(tyre(side * body, z, 1.0), "rubber", shell)
            add(tyre(side * body, z, 0.64), "rim", shell, 6)
            add(tyre(side * body, z, 0.5), "spokes", shell, 18)
            add(tyre(side * body, z, 0.2), "rim", shell, 18)
    return Mesh(np.concatenate(clouds), tuple(panels), normals, middles)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle on the road: kind, centre (x, z) in metres, heading in radians (0 drives away from us),
    paint.
    """

    kind: str
    x: float
    z: float
    heading: float
    paint: Color

    @property
    def length(self) -> float:
        return VEHICLES[self.kind][1][-2][0] - VEHICLES[self.kind][1][1][0]

    def turn(self, local: np.ndarray) -> np.ndarray:
        """(..., 3) directions of (right, up, forward) -> world."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        world = np.empty_like(local)
        world[..., 0] = local[..., 0] * cos + local[..., 2] * sin
        world[..., 1] = local[..., 1]
        world[..., 2] = local[..., 2] * cos - local[..., 0] * sin
        return world

    def world(self, local: np.ndarray) -> np.ndarray:
        return self.turn(local) + np.array([self.x, 0.0, self.z])

    def footprint(self) -> np.ndarray:
        """(4, 3) corners on the ground."""
        outline, half = VEHICLES[self.kind][1], VEHICLES[self.kind][2]
        rear, front = outline[1][0], outline[-2][0]
        return self.world(np.array([[-half, 0, rear], [half, 0, rear], [half, 0, front], [-half, 0, front]]))


def paint_vehicle(canvas: Canvas, vehicle: Vehicle) -> int:
    """Panels that face us, from far to near. Returns the instance value."""
    camera, light = canvas.camera, canvas.light
    mesh = vehicle_mesh(vehicle.kind)
    label = VEHICLES[vehicle.kind][0]
    instance = canvas.new_instance(label)
    part = canvas.new_part(label, camera.upright(vehicle.z), "smooth", instance)
    points = vehicle.world(mesh.points)
    if points[:, 2].min() < NEAR:
        return instance
    fixed = to_fixed(camera.project(points))
    normals, middles = vehicle.turn(mesh.normals), vehicle.world(mesh.middles)
    eye = np.array([-camera.bend * vehicle.z**2, camera.eye, 0.0])
    seen = ((eye - middles) * normals).sum(axis=1) > 0
    seen[0] = True
    depth = np.linalg.norm(middles - eye, axis=1)
    order = [0, *sorted(np.flatnonzero(seen)[1:].tolist(), key=lambda s: (s >= LEFT, -depth[s]))]
    sharp = camera.focal / vehicle.z
    groups: dict[int, list[Panel]] = {}
    for panel in mesh.panels:
        if panel.sharp <= sharp:
            groups.setdefault(panel.shell, []).append(panel)
    fittings = fitting_colors(light)
    for shell in order:
        body = lacquer(light, vehicle.paint, normals[shell].tolist())
        for panel in groups.get(shell, ()):
            outline = fixed[panel.first : panel.last]
            if shell == 0:
                outline = cv2.convexHull(outline)
            color = fittings.get(panel.role) or tint(body, *BODY_TONES[panel.role])
            number = piece(part, PIECE_OF_ROLE.get(panel.role, ""))
            cv2.fillPoly(canvas.plane, [outline], (*color, number), shift=SUBPIXEL)
    return instance


@lru_cache(maxsize=4)
def fitting_colors(light: Light) -> dict[str, Color]:
    """The colours of glass, lamps and wheels, the same on every vehicle."""
    sky = mix(light.sky_bottom, light.sky_top, 0.3)
    glass = mix(tint((34, 42, 50), sum(light.ambient) / 1.9), sky, 0.12)
    night = light.lamps > 0.2
    head: Color = (255, 246, 214) if night else light.shade((226, 230, 232))
    tail: Color = (255, 44, 36) if night else light.shade((190, 22, 28))
    return {
        "pane": glass,
        "windscreen": mix(glass, sky, 0.18),
        "gleam": mix(glass, sky, 0.3),
        "headlamp": head,
        "headlamp_rim": tint(head, 0.55),
        "tail": tail,
        "tail_rim": tint(tail, 0.55),
        "grille": light.shade((34, 36, 40)),
        "plate": light.shade((226, 226, 218)),
        "under": light.shade((20, 20, 22)),
        "arch": light.shade((16, 16, 18)),
        "rubber": light.shade((34, 34, 36)),
        "rim": light.shade((150, 152, 156)),
        "spokes": light.shade((92, 94, 98)),
    }


def lacquer(light: Light, paint: Color, normal: Sequence[float]) -> Color:
    """The colour of a painted panel with this normal; it reflects the sky."""
    share = 0.05 + 0.16 * max(0.0, normal[1])
    return mix(light.shade(paint, normal), mix(light.sky_bottom, light.sky_top, 0.3), share)
