"""What kube-proxy writes into iptables, and how it is taken out again; pure."""

import re
from collections.abc import Iterator

_OURS = re.compile(r"KUBE-[A-Z0-9-]+")


def chains(saved: str) -> list[str]:
    """Return kube-proxy's chains, as ``table/chain``, in what ``iptables-save`` says."""
    return [f"{table}/{chain}" for table, names, _ in _tables(saved) for chain in names]


def removal(saved: str) -> str:
    """Return what ``iptables-restore --noflush`` must read to take out kube-proxy's chains and what jumps to them."""
    lines = []
    for table, names, jumps in _tables(saved):
        if names:
            # A chain that is declared is emptied, so that in the end none refers to another.
            lines += [f"*{table}", *(f":{name} - [0:0]" for name in names)]
            lines += [rule.replace("-A", "-D", 1) for rule in jumps]
            lines += [*(f"-X {name}" for name in names), "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


def _tables(saved: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each table with kube-proxy's chains, and the rules of other chains that jump to them."""
    table = ""
    names: list[str] = []
    jumps: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            table, names, jumps = line[1:], [], []
        elif line.startswith(":") and _OURS.fullmatch(line[1:].split()[0]):
            names.append(line[1:].split()[0])
        elif line.startswith("-A") and _jumps(line):
            jumps.append(line)
        elif line == "COMMIT":
            yield table, names, jumps


def _jumps(rule: str) -> bool:
    words = rule.split()
    target = words[words.index("-j") + 1] if "-j" in words else ""
    return _OURS.fullmatch(target) is not None and _OURS.fullmatch(words[1]) is None
