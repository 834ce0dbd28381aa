"""`python -m dvsn.search`: search over options of a training."""

from __future__ import annotations

from dvsn.sweep.search import main

if __name__ == "__main__":
    main()
