"""Sliceflow: streaming sequential recommendations on Kafka."""
