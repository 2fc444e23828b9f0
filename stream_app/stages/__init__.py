"""The pure stages: state and input in, state and output out. No clock, no randomness, no I/O, no waiting."""
