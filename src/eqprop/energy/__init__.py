"""What is settled: nodes, couplings, losses, and the network they make. Imports torch alone."""
