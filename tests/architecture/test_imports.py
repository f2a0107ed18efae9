"""Who may import whom, and other rules a reader relies on. Found by parsing, so that a lazy import counts as well."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
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


@dataclass(frozen=True)
class Call:
    """Something that is called: its dotted name, the keywords given, and what it stands in."""

    line: int
    name: str
    keywords: set[str | None]
    in_parameter: bool
    in_time_function: bool


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that `module` imports, as an absolute name; `from a import b` gives `a` and, if a module, `a.b`."""
    return frozenset(found_imports(parsed(module), module, MODULES[module].name == "__init__.py"))


def found_imports(tree: ast.Module, module: str, is_package: bool = False) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
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


@cache
def calls(module: str) -> tuple[Call, ...]:
    nodes = list(ast.walk(parsed(module)))
    found = [(node, ast.unparse(node.func)) for node in nodes if isinstance(node, ast.Call)]
    parameters = within(node for node, name in found if name == "nn.Parameter")
    timed = within(node for node in nodes if isinstance(node, ast.FunctionDef) and "time" in node.name)
    return tuple(
        Call(node.lineno, name, {k.arg for k in node.keywords}, id(node) in parameters, id(node) in timed)
        for node, name in found
    )


def within(nodes: Iterable[ast.AST]) -> set[int]:
    return {id(inner) for node in nodes for inner in ast.walk(node)}


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def modules(*packages: str, but: tuple[str, ...] = ()) -> list[str]:
    """Those below `packages`, of which there are some."""
    found = sorted(name for name in MODULES if under(name, *packages) and not under(name, *but))
    assert found
    return found


def broken(rule: Callable[[str], Iterable[object]], names: Iterable[str]) -> dict[str, list[object]]:
    """Module -> what breaks the rule there."""
    return {name: found for name in sorted(names) if (found := list(rule(name)))}


def test_the_scan_sees_every_kind_of_import():
    source = (
        "import torch.nn\ndef f():\n    from irope import policy\n    from . import rope\n    from .models import wan\n"
    )
    found = found_imports(ast.parse(source), "irope.cache")
    assert {"torch.nn", "irope.policy", "irope.rope", "irope.models"} <= found
    assert {"irope.policy", "irope.registry", "irope.script", "irope.identity"} <= set(MODULES)


def test_the_core_needs_the_standard_library_only():
    assert not broken(lambda module: {name for name in imports(module) if not standard(name)} - CORE, CORE)


def test_a_policy_imports_the_interface_only():
    allowed = {"irope.policy", "irope.registry", "baselines.policies"} | POLICIES  # it may build on another one
    assert not broken(lambda module: {name for name in imports(module) if not standard(name)} - allowed, POLICIES)


def test_a_system_knows_its_contract_and_not_who_runs_it():
    """Nothing of the engine: no job, no policy, no roll-out; what is shared is text, weights, codec and files."""
    core = ("digests", "errors", "identity", "manifest", "provenance", "script", "settings", "systems", "timeline")
    allowed = ("baselines.systems", *(f"irope.{name}" for name in (*core, "rollout", "video", "models.wan")))

    def others(module: str) -> set[str]:
        ours = {name for name in imports(module) if under(name, *PACKAGES)}
        return {name for name in ours if not under(name, *allowed)}

    assert not broken(others, modules("baselines.systems"))


def importing(*forbidden: str) -> Callable[[str], set[str]]:
    return lambda module: {name for name in imports(module) if under(name, *forbidden)}


def test_the_engine_knows_no_policy_by_name():
    engine = ("irope.rope", "irope.cache", "irope.transformer")
    assert not broken(importing("irope.infinity", "baselines", "irope.registry"), engine)


def test_scoring_never_reaches_into_generation():
    forbidden = ("irope.rollout", "irope.models", "irope.sampler", "irope.transformer", "irope.cache", "baselines")
    assert not broken(importing(*forbidden), modules("eval"))


def test_generation_never_scores():
    wiring = ("irope.cli", "irope.__main__")  # the command line wires everything
    assert not broken(importing("eval", "irope.cli"), modules("irope", "baselines", but=wiring))


def test_every_module_is_of_readable_size():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > MAX_LINES}


def test_the_builtin_eval_is_not_hidden():
    """Write `from eval.x import ...`: `import eval` hides the builtin."""

    def hiding(module: str) -> list[str]:
        plain = [alias for node in ast.walk(parsed(module)) if isinstance(node, ast.Import) for alias in node.names]
        return [alias.name for alias in plain if under(alias.name, "eval") and alias.asname is None]

    assert not broken(hiding, MODULES)


def test_only_the_command_line_prints():
    def prints(module: str) -> list[int]:
        return [call.line for call in calls(module) if call.name == "print"]

    assert not broken(prints, modules(*PACKAGES, but=("irope.cli",)))


def test_rotary_angles_are_computed_in_one_place():
    """Angles of the rotary embedding live in irope.rope; the sinusoidal time embedding is the transformer's own.

    The toy world moves things along circles, and normal noise is made from uniform noise with an angle (Box-Muller).
    """
    angles = {"cos", "sin", "polar", "view_as_complex", "cos_", "sin_", "sincos"}

    def used(module: str) -> list[tuple[int, str]]:
        found = [call for call in calls(module) if call.name.rpartition(".")[2] in angles]
        own = module == "irope.transformer"
        return [(call.line, call.name) for call in found if not (own and call.in_time_function)]

    assert not broken(used, modules("irope", but=("irope.rope", "irope.world", "irope.noise")))


def test_no_global_random_generator():
    """A draw from hidden state would make a video depend on what ran before it in the same process.

    So every call needs a generator of its own. Initial values of parameters are not seen in a video: weights are
    loaded over them. The runners seed the generator that another project draws from, in a process of its own.
    """
    seeds = ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.randn_like", "torch.rand_like")
    draws = ("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.normal", "torch.bernoulli")

    def hidden(call: Call) -> bool:
        if call.name.startswith(("np.random.", "random.")):
            made = call.name.partition("random.")[2]
            return not made.startswith("default_rng") and not made[0].isupper()  # a generator of its own
        return call.name in seeds or (call.name in draws and "generator" not in call.keywords)

    def draws_of(module: str) -> list[tuple[int, str]]:
        return [(call.line, call.name) for call in calls(module) if hidden(call) and not call.in_parameter]

    assert not broken(draws_of, modules(*PACKAGES, but=("baselines.systems.runners",)))


@pytest.mark.parametrize("module", ["irope.registry", "irope.script", "irope.cli.main"])
def test_listing_loads_no_torch(module):
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
