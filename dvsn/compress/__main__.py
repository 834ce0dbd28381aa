"""`python -m dvsn.compress`."""

from dvsn.compress.command import main

if __name__ == "__main__":
    main()
