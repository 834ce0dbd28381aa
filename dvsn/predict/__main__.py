"""`python -m dvsn.predict`: a checkpoint on pictures of your own."""

from __future__ import annotations

from dvsn.predict.command import main

if __name__ == "__main__":
    main()
