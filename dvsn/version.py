"""The version of dvsn."""

VERSION = "0.1.0"
