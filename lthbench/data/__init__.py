"""Data sets: what is known of them without reading them, how they are read and checked, how batches are made."""
