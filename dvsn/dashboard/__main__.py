"""`python -m dvsn.dashboard`: a workspace and a report of W&B for each task."""

from __future__ import annotations

from dvsn.dashboard.command import main

if __name__ == "__main__":
    main()
