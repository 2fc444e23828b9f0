"""Judging lists on an event log: protocols, baselines, measures by segment, reports, parity with the running stream."""
