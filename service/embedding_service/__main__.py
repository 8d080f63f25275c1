"""``python -m embedding_service``."""

from embedding_service.main import main

main()
