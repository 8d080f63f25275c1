"""fastembed as a peer. Run by ``peers.py`` in an environment of its own, so it imports nothing of the project.

Arguments and answers are those of ``run_infinity_emb.py``; the directory is one that ``export_onnx.py`` has made.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

NAME = "local/exported"


def main(model: str, settings: str) -> None:
    """Answer until stdin closes."""
    dimension = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=dimension,
        model_file="model.onnx",
    )
    embedding = TextEmbedding(
        NAME, specific_model_path=model, providers=["CPUExecutionProvider"], threads=os.cpu_count()
    )
    options = json.loads(settings)
    list(embedding.embed(["to have everything loaded"] * 8))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        texts = json.loads(Path(asked["texts"]).read_text(encoding="utf-8"))
        started = time.monotonic()
        vectors = list(embedding.embed(texts, **options))
        seconds = time.monotonic() - started
        if asked["vectors"]:
            np.save(asked["vectors"], np.stack(vectors))
        print(seconds, flush=True)


main(*sys.argv[1:])
