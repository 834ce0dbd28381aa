"""`python -m dvsn.report`: compare the runs of a sweep or a search."""

from __future__ import annotations

from dvsn.report.command import main

if __name__ == "__main__":
    main()
