"""Nothing that can carry code is ever read: no pickle and its like, nowhere in the sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("station", "varad_core", "drivers", "db", "ui")
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"recv_pyobj", "send_pyobj", "unsafe_load", "full_load"}


def dangers(source: str) -> list[str]:
    """What there is in a source that can run code out of data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                found.append(module)
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found.append(name)
            case ast.Call(func=ast.Attribute(attr=name)) if name in METHODS:
                found.append(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                found += ["torch.load"] if given.get("weights_only") != "True" else []
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append("allow_pickle")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load"), keywords=keywords):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                found += ["yaml.load"] if "Safe" not in given.get("Loader", "") else []
    return found


def test_no_source_reads_what_can_carry_code() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 100
    assert {str(path): found for path in sources if (found := dangers(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "def f():\n    import marshal", "eval('1')", "exec(x)",
        "torch.load(p)", "torch.load(p, weights_only=False)", "socket.recv_pyobj()", "import joblib.memory",
        "np.load(p, allow_pickle=True)", "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)",
        "yaml.unsafe_load(x)",
    ],
)  # fmt: skip
def test_each_of_them_is_seen(source: str) -> None:
    assert len(dangers(source)) == 1


def test_what_is_harmless_is_not() -> None:
    assert dangers("model.eval()\ntorch.load(p, weights_only=True)\nre.compile('x')\njson.loads(x)") == []
