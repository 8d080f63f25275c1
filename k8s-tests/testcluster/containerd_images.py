"""Images that buildah has built, made known to the node's containerd without a copy of any layer.

Each layer that containerd lacks becomes a snapshot full of hard links to buildah's files; then a manifest and a
configuration without layers are imported. An image of gigabytes takes seconds, and its disk space once.
"""

import json
import os
import re
from typing import Any

from testcluster import buildah, oci
from testcluster.commands import run
from testcluster.containerd import ctr
from testcluster.errors import CommandFailed
from testcluster.images import full_name

# `ctr` puts this label on what its collector shall keep; after the import the image itself keeps its layers.
_KEEP = "containerd.io/gc.root"
_TOP_LAYER = "containerd.io/gc.ref.snapshot.overlayfs"
# A failed build leaves a mount over buildah's files, and a link can't cross one; so this sees none of them.
_LINK = (
    'while mountpoint -q "$1"; do umount --lazy "$1" || break; done; exec cp --archive --link --no-clobber "$2/." "$3"'
)


def load(name: str) -> str:
    """Make an image known to containerd; return the name by which pods refer to it.

    Raises ``CommandFailed`` where it was not built here.
    """
    reference = full_name(name)
    config, layers = buildah.layers(reference)
    digests = [layer["diff-digest"] for layer in layers]
    if digests != json.loads(config)["rootfs"]["diff_ids"]:
        raise CommandFailed(f"{reference}: its layers in buildah's store are others than its configuration says")
    known = {line.split()[0] for line in ctr("snapshots", "ls").stdout.splitlines()[1:]}
    parent = ""
    for layer, snapshot in zip(layers, chain_ids(digests), strict=True):
        if snapshot not in known:
            _add_snapshot(layer, snapshot, parent)
        parent = snapshot
    sizes = [(layer["diff-digest"], layer.get("diff-size", 0)) for layer in layers]
    ctr("images", "import", "--no-unpack", "-", stdin=oci.archive(reference, config, sizes))
    ctr("content", "label", oci.digest(config), f"{_TOP_LAYER}={parent}")
    for snapshot in chain_ids(digests):
        ctr("snapshots", "label", snapshot, f"{_KEEP}=")
    return reference


def chain_ids(digests: list[str]) -> list[str]:
    """Return the names of snapshots: each of a layer together with all below it."""
    chain: list[str] = []
    for digest in digests:
        chain.append(oci.digest(f"{chain[-1]} {digest}".encode()) if chain else digest)
    return chain


def _add_snapshot(layer: dict[str, Any], snapshot: str, parent: str) -> None:
    key = f"load-{snapshot[7:19]}-{os.getpid()}"
    ctr("snapshots", "prepare", key, *([parent] if parent else []))
    try:
        mounts = ctr("snapshots", "mounts", "/x", key).stdout
        # The lowest layer is a plain bind mount of its own directory.
        found = re.search(r"upperdir=([^,\s]+)", mounts) or re.search(r"(/\S+/fs)\b", mounts)
        if found is None:
            raise CommandFailed(f"containerd's mount of a new snapshot is not understood: {mounts}")
        files = buildah.store() / "overlay"
        command = ("unshare", "--mount", "--propagation=private", "sh", "-c", _LINK, "link")
        run(*command, files, files / layer["id"] / "diff", found[1], timeout=600)
        ctr("snapshots", "commit", snapshot, key)
    except CommandFailed:
        ctr("snapshots", "rm", key, check=False)
        raise
