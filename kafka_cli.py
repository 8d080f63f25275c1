"""``kafka-cli`` as ``python kafka_cli.py`` from the repository's root."""

import sys

try:
    from embedding_service.kafka_cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"kafka_cli.py: {error} for {sys.executable}: `make quickstart` installs it to .venv "
        "(.venv/bin/python kafka_cli.py ...), or `pip install -e '.[service]'` here"
    )

if __name__ == "__main__":
    sys.exit(main())
