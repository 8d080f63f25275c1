"""Small OCI images as archives, made here: what containerd imports."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    """Return the digest by which registries and runtimes know ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(reference: str, config: bytes, layers: Sequence[tuple[str, int]], blobs: Sequence[bytes] = ()) -> bytes:
    """Return an archive of an image whose layers are named by digest and size.

    ``blobs`` are the layers that go into the archive; an importer that has a layer already needs none.
    """
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer, "size": size} for layer, size in layers],
        }
    )
    entry = {
        "mediaType": MANIFEST_TYPE,
        "digest": digest(manifest),
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": reference},
    }
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"})}
    files |= {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (config, manifest, *blobs)}
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [entry]})
    return _tar(files)


def one_file(reference: str, file: Path, architecture: str) -> bytes:
    """Return an archive of an image that is one executable file."""
    layer = _tar({file.name: file.read_bytes()}, mode=0o755)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{file.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }
    return archive(reference, _json(config), [(digest(layer), len(layer))], [layer])


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(files: Mapping[str, bytes], *, mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
