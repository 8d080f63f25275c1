"""The page of the documentation that is about the status, by its tables: tests hold it against what there is."""

from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "status.md").read_text(encoding="utf-8")
_HEADINGS = {"reason", "condition", "column", "field", "case"}


def section(heading: str) -> str:
    """The text below a heading of the second level."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of its tables, without those of headings."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if line[0].strip() not in _HEADINGS]
