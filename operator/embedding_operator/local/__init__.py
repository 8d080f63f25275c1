"""The same manifest without a cluster: a broker in memory, a worker process, texts in, vectors and a report out.

Pure modules decide (``texts``, ``tracker``, ``neighbours``, ``report``); ``sources``, ``docstrings``, ``output``,
``broker``, ``clients``, ``worker``, ``progress`` and ``stop`` touch the world; ``corpus``, ``exchange`` and ``run``
join them. The operator in a cluster imports nothing of this.
"""
