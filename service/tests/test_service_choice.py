"""Which backend and precision a machine gets, and how many threads."""

import os
from pathlib import Path

import pytest

from embedding_service.encoders.choice import Candidate, Wanted, candidates, precision_class
from embedding_service.encoders.processors import available, quota, usable

AMX = frozenset({"avx512_vnni", "amx_bf16"})
AVX = frozenset({"avx512_vnni", "avx512_bf16"})
PLAIN = frozenset({"avx512_vnni"})


@pytest.mark.parametrize(
    ("wanted", "device", "flags", "openvino", "expected"),
    [
        pytest.param("auto", "cpu", PLAIN, True, ["openvino float32", "pytorch float32"], id="a CPU"),
        pytest.param("auto", "cpu", AMX, True, ["openvino bfloat16", "pytorch bfloat16", "openvino float32", "pytorch float32"], id="a CPU with AMX"),
        pytest.param("auto", "cpu", AVX, True, ["openvino bfloat16", "openvino float32", "pytorch float32"], id="a CPU with bfloat16 in AVX-512, from which PyTorch doesn't gain"),
        pytest.param("auto", "cpu", AVX, False, ["pytorch float32"], id="such a CPU and a model that OpenVINO can't represent"),
        pytest.param("auto", "cpu", AMX, False, ["pytorch bfloat16", "pytorch float32"], id="a model that OpenVINO can't represent"),
        pytest.param("auto", "cpu", frozenset(), True, ["openvino float32", "pytorch float32"], id="a CPU that doesn't say what it can"),
        pytest.param("float32", "cpu", AMX, True, ["openvino float32", "pytorch float32"], id="float32 although there is AMX"),
        pytest.param("bfloat16", "cpu", PLAIN, True, ["openvino bfloat16", "pytorch bfloat16"], id="bfloat16 although there is no AMX"),
        pytest.param("float16", "cpu", AMX, True, [], id="float16 on a CPU"),
        pytest.param("auto", "cuda", AMX, True, ["pytorch float16", "pytorch bfloat16", "pytorch float32"], id="a GPU"),
        pytest.param("bfloat16", "cuda", AMX, True, ["pytorch bfloat16"], id="bfloat16 on a GPU"),
        pytest.param("float32", "cuda", AMX, True, ["pytorch float32"], id="float32 on a GPU"),
    ],
)  # fmt: skip
def test_candidates_are_the_fastest_first(
    wanted: Wanted, device: str, flags: frozenset[str], openvino: bool, expected: list[str]
) -> None:
    assert [str(one) for one in candidates(wanted, device, flags, openvino=openvino)] == expected


@pytest.mark.parametrize(
    ("candidate", "cosine", "wanted", "expected"),
    [
        pytest.param(Candidate("openvino", "bfloat16"), 0.9999, "auto", "full", id="exact enough for one class"),
        pytest.param(Candidate("openvino", "bfloat16"), 0.99989, "auto", None, id="never by itself"),
        pytest.param(Candidate("openvino", "bfloat16"), 0.99989, "bfloat16", "bfloat16", id="by name, a class of its own"),
        pytest.param(Candidate("openvino", "bfloat16"), 0.99995, "bfloat16", "full", id="by name and exact"),
        pytest.param(Candidate("pytorch", "float16"), 0.9989, "float16", None, id="not even by name"),
        pytest.param(Candidate("openvino", "float32"), 0.9995, "float32", None, id="float32 is exact or isn't"),
        pytest.param(Candidate("pytorch", "float16"), 0.0, "float16", None, id="vectors that aren't finite"),
    ],
)  # fmt: skip
def test_the_class_of_vectors(candidate: Candidate, cosine: float, wanted: Wanted, expected: str | None) -> None:
    assert precision_class(candidate, cosine, wanted) == expected


@pytest.mark.parametrize(
    ("version_2", "version_1", "expected"),
    [
        pytest.param("max 100000\n", None, None, id="no limit"),
        pytest.param("150000 100000\n", None, 1.5, id="one and a half"),
        pytest.param("50000 100000\n", None, 0.5, id="half a processor"),
        pytest.param(None, ("-1\n", "100000\n"), None, id="version 1, no limit"),
        pytest.param(None, ("400000\n", "100000\n"), 4.0, id="version 1, four"),
        pytest.param(None, None, None, id="no cgroup"),
        pytest.param("", None, None, id="nothing in the file"),
    ],
)
def test_the_limit_of_a_cgroup(
    version_2: str | None, version_1: tuple[str, str] | None, expected: float | None
) -> None:
    assert quota(version_2, version_1) == expected


@pytest.mark.parametrize(
    ("present", "limit", "expected"), [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.1, 1), (2, 4.0, 2)]
)
def test_threads_are_the_processors_that_may_be_used(present: int, limit: float | None, expected: int) -> None:
    assert usable(present, limit) == expected


@pytest.mark.parametrize(
    ("own", "files"),
    [
        pytest.param("0::/\n", {"cpu.max": "100000 100000"}, id="version 2, in a container"),
        pytest.param("0::/kubepods/pod1/c1\n", {"kubepods/pod1/cpu.max": "100000 100000", "kubepods/pod1/c1/cpu.max": "max 100000"}, id="version 2, the pod's limit"),
        pytest.param("4:memory:/\n3:cpu,cpuacct:/kubepods/c1\n", {"cpu,cpuacct/kubepods/c1/cpu.cfs_quota_us": "100000", "cpu,cpuacct/kubepods/c1/cpu.cfs_period_us": "100000"}, id="version 1"),
        pytest.param("3:cpu,cpuacct:/kubepods/c1\n", {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, id="version 1, in a container, by the node's path"),
    ],
)  # fmt: skip
def test_a_limit_is_found_in_the_cgroups_of(own: str, files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert available(tmp_path / "cgroup", tmp_path / "own") == 1


def test_without_a_limit_there_are_as_many_threads_as_processors(tmp_path: Path) -> None:
    assert available(tmp_path, tmp_path / "own") == len(os.sched_getaffinity(0))
