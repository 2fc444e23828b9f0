"""Replay of event logs: through a broker, or through the same pure stages without one. Never imports
faust."""
