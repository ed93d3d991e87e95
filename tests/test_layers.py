"""The direction of imports inside the package."""

import ast
from pathlib import Path

import pytest

import lit_gen

PACKAGE = Path(lit_gen.__file__).parent
ALLOWED = {
    "distributions": set(),
    "captions": set(),
    "digit_scenes": set(),
    "rendering": set(),
    "views": set(),
    "networks": {"distributions"},
    "objectives": {"distributions"},
    "inference": {"distributions", "objectives"},
    "models": {"distributions", "networks", "objectives", "inference", "captions", "views"},
    "data": {"captions", "digit_scenes", "rendering", "views"},
    "metrics": set(),
    "callbacks": {"objectives", "inference", "models", "metrics", "digit_scenes", "rendering", "views"},
}
BASE_ONLY = ("lit_gen.models.base", "lit_gen.models.checkpoint", "lit_gen.models.capabilities")


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    found += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [name for name in found if name.split(".")[0] == "lit_gen" and name != "lit_gen"]


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_lies_below_it(part: str) -> None:
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").is_file() else sorted((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            layer = name.split(".")[1]
            assert layer == part or layer in ALLOWED[part], f"{path.name} imports {name}"
            if part == "callbacks" and layer == "models":
                assert name in BASE_ONLY, f"{path.name} imports {name}: callbacks know only the contract"


def test_lightning_is_imported_under_one_name() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "pytorch_lightning" not in path.read_text(), path
