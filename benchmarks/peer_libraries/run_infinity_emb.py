"""infinity_emb as a peer. Run by ``peers.py`` in an environment of its own, so it imports nothing of the project.

Arguments: the model's directory, and settings as JSON. For each line of stdin, a JSON object with the path of the texts
and perhaps one for their vectors, embeds all texts and answers with the seconds on a line of stdout.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np
from infinity_emb import AsyncEmbeddingEngine, EngineArgs


async def main(model: str, settings: str) -> None:
    """Answer until stdin closes."""
    arguments = EngineArgs(
        model_name_or_path=model,
        engine="torch",
        device="cpu",
        dtype="float32",
        model_warmup=False,
        # Its scheduler sorts by tokens, not by characters.
        lengths_via_tokenize=True,
        **json.loads(settings),
    )
    engine = AsyncEmbeddingEngine.from_args(arguments)
    async with engine:
        await engine.embed(["to have everything loaded"] * 8)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            texts = json.loads(Path(asked["texts"]).read_text(encoding="utf-8"))
            started = time.monotonic()
            vectors, _ = await engine.embed(texts)
            seconds = time.monotonic() - started
            if asked["vectors"]:
                np.save(asked["vectors"], np.stack(vectors))
            print(seconds, flush=True)


asyncio.run(main(*sys.argv[1:]))
