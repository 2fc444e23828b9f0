"""The audit: whether what lies on the topics and in the stores keeps the promises of ARCHITECTURE.md.

`auditor` reads topics and stores and hands what it reads to the checks, which are plain objects that know no Kafka:
they take runs of records and note in a `Check` what they saw. Nothing is written, committed or locked, so an audit
may run beside the roles. Of topics only hashes and positions are held, never whole values.
"""
