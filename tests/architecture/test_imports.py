"""Who may import whom, and other rules a reader relies on. Found by parsing, so that a lazy import counts as well."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("irope", "eval", "baselines")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
CORE = {
    f"irope.{name}"
    for name in ("policy", "registry", "named_classes", "settings", "script", "timeline", "identity", "errors")
}
POLICIES = {name for name in MODULES if name.startswith("baselines.policies.")} | {"irope.infinity"}
MAX_LINES = 400


def imports(module: str) -> set[str]:
    """Every module that `module` imports, as an absolute name; `from a import b` gives `a` and, if a module, `a.b`."""
    return found_imports(MODULES[module].read_text(encoding="utf-8"), module, MODULES[module].name == "__init__.py")


def found_imports(source: str, module: str, is_package: bool = False) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: (1 if is_package else 0) - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES}
    # `import irope` of the package itself gives nothing away: only what is named below it counts.
    return found - {"irope", "baselines"}


def standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def calls(module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is called."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_the_scan_sees_every_kind_of_import():
    source = (
        "import torch.nn\ndef f():\n    from irope import policy\n    from . import rope\n    from .models import wan\n"
    )
    found = found_imports(source, "irope.cache")
    assert {"torch.nn", "irope.policy", "irope.rope", "irope.models"} <= found
    assert {"irope.policy", "irope.registry", "irope.script", "irope.identity"} <= set(MODULES)


@pytest.mark.parametrize("module", sorted(CORE & set(MODULES)))
def test_the_core_needs_the_standard_library_only(module):
    assert {name for name in imports(module) if not standard(name)} <= CORE


@pytest.mark.parametrize("module", sorted(POLICIES & set(MODULES)))
def test_a_policy_imports_the_interface_only(module):
    allowed = {"irope.policy", "irope.registry", "baselines.policies"} | POLICIES  # it may build on another one
    assert {name for name in imports(module) if not standard(name)} <= allowed


@pytest.mark.parametrize("module", sorted(name for name in MODULES if under(name, "baselines.systems")))
def test_a_system_knows_its_contract_and_not_who_runs_it(module):
    """Nothing of the engine: no job, no policy, no roll-out; what is shared is text, weights, codec and files."""
    core = ("digests", "errors", "identity", "manifest", "provenance", "script", "settings", "systems", "timeline")
    allowed = ("baselines.systems", *(f"irope.{name}" for name in (*core, "rollout", "video", "models.wan")))
    ours = {name for name in imports(module) if under(name, "irope", "eval", "baselines")}
    assert not {name for name in ours if not under(name, *allowed)}


@pytest.mark.parametrize("module", ["irope.rope", "irope.cache", "irope.transformer"])
def test_the_engine_knows_no_policy_by_name(module):
    if module not in MODULES:
        pytest.skip(f"{module} is not there yet")
    assert not {name for name in imports(module) if under(name, "irope.infinity", "baselines", "irope.registry")}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if under(name, "eval")))
def test_scoring_never_reaches_into_generation(module):
    forbidden = ("irope.rollout", "irope.models", "irope.sampler", "irope.transformer", "irope.cache", "baselines")
    assert not {name for name in imports(module) if under(name, *forbidden)}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if under(name, "irope", "baselines")))
def test_generation_never_scores(module):
    if under(module, "irope.cli", "irope.__main__"):
        pytest.skip("the command line wires everything")
    assert not {name for name in imports(module) if under(name, "eval", "irope.cli")}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_is_of_readable_size(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_builtin_eval_is_not_hidden(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    plain = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    hiding = [alias.name for alias in plain if under(alias.name, "eval") and alias.asname is None]
    assert not hiding, f"write `from {hiding[0]} import ...`: `import eval` hides the builtin"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if not under(name, "irope.cli")))
def test_only_the_command_line_prints(module):
    assert not [line for line, name in calls(module) if name == "print"]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if under(name, "irope")))
def test_rotary_angles_are_computed_in_one_place(module):
    """Angles of the rotary embedding live in irope.rope; the sinusoidal time embedding is the transformer's own.

    The toy world moves things along circles, and normal noise is made from uniform noise with an angle (Box-Muller).
    """
    if under(module, "irope.rope", "irope.world", "irope.noise"):
        pytest.skip("has angles of its own")
    angles = {"cos", "sin", "polar", "view_as_complex", "cos_", "sin_", "sincos"}
    used = [(line, name) for line, name in calls(module) if name.rpartition(".")[2] in angles]
    if module == "irope.transformer":
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "time" in node.name]
        allowed = {line for node in functions for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        used = [(line, name) for line, name in used if line not in allowed]
    assert not used


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_global_random_generator(module):
    """A draw from hidden state would make a video depend on what ran before it in the same process."""
    if under(module, "baselines.systems.runners"):
        pytest.skip("seeds the generator that another project draws from, in a process of its own")
    seeds = ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.randn_like", "torch.rand_like")
    draws = ("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.normal", "torch.bernoulli")
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    # Initial values of parameters are not seen in a video: weights are loaded over them.
    initial = {id(n) for call in ast.walk(tree) if named(call, "nn.Parameter") for n in ast.walk(call)}
    bad = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in initial:
            name, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            hidden = name in seeds or (name in draws and "generator" not in given)
            if name.startswith(("np.random.", "random.")):
                made = name.partition("random.")[2]
                hidden = not made.startswith("default_rng") and not made[0].isupper()  # a generator of its own
            bad += [(node.lineno, name)] * hidden
    assert not bad, "give the call a generator of its own"


@pytest.mark.parametrize("module", ["irope.registry", "irope.script", "irope.cli.main"])
def test_listing_loads_no_torch(module):
    if module not in MODULES:
        pytest.skip(f"{module} is not there yet")
    act = "; import irope.registry; irope.registry.policies()" if module == "irope.registry" else ""
    code = f"import sys, {module}{act}; print(sorted({{'torch', 'pandas', 'matplotlib', 'av'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_and_measuring_the_embedded_model_need_torch_numpy_and_safetensors_only():
    """A bare GPU image has no more, so every other package is refused here."""
    code = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"hydra", "omegaconf", "pandas", "rich", "av", "PIL", "yaml", "jinja2", "matplotlib"}:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refuse())
from irope.cli.main import main
import irope.cli.train, irope.models.tiny.evaluate, irope.models.tiny.train
assert main(["train", "tiny", "--stage", "bse"]) == 2
assert main(["verify", "tiny", "--prompts", "1"]) == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean 'base'" in done.stderr
