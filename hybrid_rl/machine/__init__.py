"""What this machine is good at, measured at start-up, and which kernels follow from it."""
