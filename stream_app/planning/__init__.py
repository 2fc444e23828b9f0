"""What machines a load needs, computed from what was measured: each figure with the measurement that it comes from."""
