"""The operator: EmbeddingPipelines, and what makes them so. Imports nothing of the service but its contract."""
