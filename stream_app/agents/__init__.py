"""The roles: thin shells between Kafka's records and the pure stages, one module each."""
