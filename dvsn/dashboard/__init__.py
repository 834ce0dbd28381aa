"""Workspaces and reports of W&B, described as data in `conf/dashboard/`."""
