"""The worker: texts from Kafka, embeddings to Kafka.

Modules in the order a message flows: ``consumer`` polls and commits, ``records`` parses, ``embedding`` tokenises,
packs and encodes, ``delivery`` produces and says which offsets may be committed. ``stages`` holds the bounded queues
between them, ``pipeline`` joins them, ``worker`` starts and stops them. ``contract`` is all that the operator may
import; nothing here imports the operator.
"""

__version__ = "0.1.0"
