"""Traces from an event to its list, carried over topics by headers; off unless `trace_exporter` says otherwise.

The only place where OpenTelemetry is imported, and then only where traces are wanted: it is an extra.
"""
