"""What is measured of a network: accuracy and loss, sparsity by three counts, multiply-adds."""
