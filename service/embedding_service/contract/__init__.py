"""All that the operator and the worker agree on.

Pure and light: no client, no clock, no environment, no file, and nothing of the rest of the service. Both packages
import it; it imports neither.
"""
