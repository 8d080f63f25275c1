"""Fixtures of the project's images: built once for all tests, which are told how large they are."""

import pytest

import embedding_service
from announcing import announcer
from testcluster.images import BuiltImage, build_image

REVISION = "0123456789abcdef"
SOURCE = "https://git.example/embedding-service"
LABELS = {"VERSION": embedding_service.__version__, "REVISION": REVISION, "SOURCE": SOURCE}
# No test may need a model hub.
WORKER = {"DEFAULT_MODEL": "package"}


@pytest.fixture(scope="session")
def operator_image(request: pytest.FixtureRequest) -> BuiltImage:
    """Build the operator's image; ``cluster.load_image(operator_image.reference)`` gives it to the cluster."""
    return _built(request, "operator", LABELS)


@pytest.fixture(scope="session")
def worker_image(request: pytest.FixtureRequest) -> BuiltImage:
    """Build the workers' image with the default model in it; give it to the cluster as the operator's."""
    return _built(request, "worker", LABELS | WORKER)


def _built(request: pytest.FixtureRequest, target: str, arguments: dict[str, str]) -> BuiltImage:
    announce = announcer(request.config)
    image = build_image(target, f"embedding-{target}:test", arguments, say=announce)
    announce(f"Image: {image.reference}, {image.size_bytes / 1e6:,.0f} MB, built in {image.seconds:.0f} s")
    return image
