"""Outputs to Kafka, and which input offsets they allow to be committed: the guarantees, behind one protocol."""
