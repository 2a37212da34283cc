"""Averages of networks (model soups), choosing among them, and BatchNorm's statistics afterwards."""
