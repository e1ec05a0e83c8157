"""The README's table of faults: each has a test that is there, and none loses or wrongly passes a part."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "| fault | what the line does | noticed | back | lost | wrongly passed | test |"


def rows() -> list[list[str]]:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    table = lines[lines.index(HEADER) + 2 :]
    end = next(index for index, line in enumerate(table) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:end]]


def functions_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_test() -> None:
    assert len(rows()) >= 30
    for fault, does, noticed, back, lost, passed, test in rows():
        assert fault and does and noticed and back, fault
        assert (lost, passed) == ("0", "0"), fault
        file, _, name = test.strip("`").partition("::")
        assert name in functions_in(file), f"{fault}: {test}"


def test_no_fault_stands_there_twice() -> None:
    faults = [row[0] for row in rows()]
    assert len(set(faults)) == len(faults)
