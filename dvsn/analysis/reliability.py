"""The reliability diagram as a chart."""

from __future__ import annotations

from dvsn.analysis.record import Chart, Curve
from dvsn.metrics.calibration import Reliability


def chart(found: Reliability, *, what: str) -> Chart:
    """Accuracy over confidence by bin, and how many of the answers, `what` such as `pictures`, each bin holds."""
    confidence, accuracy, share = zip(*found.points(), strict=True) if found.points() else ((), (), ())
    return Chart(
        key="calibration",
        title="Calibration",
        x="confidence of the answer",
        y="share",
        curves=(
            Curve("answers that are right", confidence, accuracy),
            Curve(f"of all {what}", confidence, share),
        ),
        diagonal=True,
        note=f"Below the diagonal the network is surer than it is right. Expected calibration error "
        f"{found.error():.4f}, over {found.bins} bins.",
    )
