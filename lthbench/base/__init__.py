"""What every room stands on: one-line errors, typed settings with a canonical text, and seeds."""
