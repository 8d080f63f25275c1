"""The Go tools of the cluster: built from pinned modules in ``k8s-tests/tools``, once, and kept in the cache."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testcluster import cache
from testcluster.commands import run
from testcluster.errors import ClusterUnavailable

MODULES = Path(__file__).parent.parent / "tools"
BUILD_TIMEOUT_SECONDS = 1800
_STAMP = "k8s.io/component-base/version"
_KEDA = "github.com/kedacore/keda/v2"


@dataclass(frozen=True, slots=True)
class Tool:
    """A command of a module in ``k8s-tests/tools``; ``origin`` is the dependency whose version is the tool's."""

    module: str
    package: str
    origin: str


def _kubernetes(package: str) -> Tool:
    return Tool("kubernetes", package, "k8s.io/kubernetes")


TOOLS = {
    "kubectl": _kubernetes("k8s.io/kubernetes/cmd/kubectl"),
    "etcd": _kubernetes("go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": _kubernetes("k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": _kubernetes("k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubelet": _kubernetes("k8s.io/kubernetes/cmd/kubelet"),
    "kube-proxy": _kubernetes("k8s.io/kubernetes/cmd/kube-proxy"),
    "coredns": Tool("coredns", "github.com/coredns/coredns", "github.com/coredns/coredns"),
    "helm": Tool("helm", "helm.sh/helm/v3/cmd/helm", "helm.sh/helm/v3"),
    "kind": Tool("kind", "sigs.k8s.io/kind", "sigs.k8s.io/kind"),
    "kubeconform": Tool("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "github.com/yannh/kubeconform"),
    "pause": Tool("pause", "pause", ""),
    "metrics-server": Tool(
        "metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server", "sigs.k8s.io/metrics-server"
    ),
    "keda-operator": Tool("keda", f"{_KEDA}/cmd/operator", _KEDA),
    "keda-adapter": Tool("keda", f"{_KEDA}/cmd/adapter", _KEDA),
}


def path(name: str, say: Callable[[str], None] = print) -> Path:
    """Return the file of a tool, built if it isn't there yet.

    Raises ``ClusterUnavailable`` where there is no Go, ``CommandFailed`` with Go's own words.
    """
    tool = TOOLS[name]
    binary = directory(tool) / name
    if binary.exists():
        return binary
    with _alone():
        if not binary.exists():
            _build(name, tool, binary, say)
    return binary


def version(tool: Tool) -> str:
    """Return the version that the tool's go.mod pins."""
    if not tool.origin:
        return "v0"
    text = (MODULES / tool.module / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s*{re.escape(tool.origin)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{MODULES / tool.module / 'go.mod'}: {tool.origin} is not required there")
    return found[1]


def directory(tool: Tool) -> Path:
    """Return the directory of a module's built tools: another one for each content of its pins, sources and flags."""
    digest = hashlib.sha256(_flags(tool).encode())
    for file in sorted((MODULES / tool.module).iterdir()):
        digest.update(file.read_bytes())
    return cache.directory() / "tools" / f"{tool.module}-{version(tool)}-{digest.hexdigest()[:12]}"


def sources(tool: Tool) -> Path:
    """Return the directory with the sources of a tool's origin, downloaded if they aren't there."""
    command = ("go", "-C", MODULES / tool.module, "mod", "download", "-json", tool.origin)
    return Path(json.loads(run(*command, timeout=BUILD_TIMEOUT_SECONDS).stdout)["Dir"])


def _flags(tool: Tool) -> str:
    flags = "-s -w"
    if tool.module == "kubernetes":
        number = version(tool)
        major, minor = number.removeprefix("v").split(".")[:2]
        flags += f" -X {_STAMP}.gitVersion={number} -X {_STAMP}.gitMajor={major} -X {_STAMP}.gitMinor={minor}"
    return flags


def _build(name: str, tool: Tool, binary: Path, say: Callable[[str], None]) -> None:
    if shutil.which("go") is None:
        raise ClusterUnavailable(f"{name} is built by Go, and there is none: install it from https://go.dev/dl/")
    say(f"building {name} {version(tool)}, once: minutes where Go has none of its packages in its cache")
    started = time.monotonic()
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as temporary:
        built = Path(temporary) / name
        run(
            *("go", "build", "-C", MODULES / tool.module, "-trimpath", f"-ldflags={_flags(tool)}", "-o", built),
            tool.package,
            environment=os.environ | {"CGO_ENABLED": "0"},
            timeout=BUILD_TIMEOUT_SECONDS,
        )
        built.rename(binary)
    say(f"built {name} in {time.monotonic() - started:.0f} s")


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process builds: Go's linker takes gigabytes."""
    lock = cache.directory() / "tools" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
