"""How a network is trained: recipes, learning-rate series, checkpoints and the one loop."""
