"""A teacher and a budget become the best network that meets it: measured, trained by halving, quantised, chosen."""
