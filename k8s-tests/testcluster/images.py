"""The project's images, built by whatever builder there is: the container engine that runs, else buildah."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testcluster import buildah, choice
from testcluster.commands import run
from testcluster.progress import Say, to_stdout

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """``reference``: its full name. ``size_bytes``: of its unpacked layers. ``seconds``: what the build took."""

    reference: str
    size_bytes: int
    seconds: float


def build_image(
    dockerfile_target: str,
    tag: str,
    build_args: Mapping[str, str] | None = None,
    *,
    context: Path = REPOSITORY,
    say: Say = to_stdout,
) -> BuiltImage:
    """Build a target of the Dockerfile in ``context`` and give it a name, such as ``embedding-operator:test``.

    Raises ``ClusterUnavailable`` where there is no builder, ``CommandFailed`` with the end of what the build said.
    """
    started = time.monotonic()
    reference = full_name(tag)
    engine = choice.engine()
    if engine is None:
        buildah.build(context, dockerfile_target, reference, build_args or {}, say)
        size = sum(layer.get("diff-size", 0) for layer in buildah.layers(reference)[1])
    else:
        words = [f"--build-arg={name}={value}" for name, value in (build_args or {}).items()]
        target = f"--target={dockerfile_target}"
        run(
            *(engine, "build", target, f"--tag={reference}", *words, str(context)),
            timeout=buildah.BUILD_TIMEOUT_SECONDS,
        )
        size = int(run(engine, "image", "inspect", "--format={{.Size}}", reference).stdout)
    return BuiltImage(reference, size, time.monotonic() - started)


def full_name(tag: str) -> str:
    """Return the name that every runtime understands by a short one."""
    first, slash, _ = tag.partition("/")
    if not slash:
        return f"docker.io/library/{tag}"
    return tag if "." in first or ":" in first or first == "localhost" else f"docker.io/{tag}"
