"""Rooms import downwards only, libraries stay at home, and there are no circles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import service

HOUSE = Path(service.__file__).parent

# Who may import whom: a room imports itself and the floors below, never a neighbour.
FLOORS = {
    7: {"__main__"},
    6: {"cli"},
    5: {"api"},
    4: {"engine", "client", "worker", "cluster"},
    3: {"models", "schemas", "task"},
    2: {"codecs", "training", "serving"},
    1: {"lora", "jobs"},
    0: {"errors", "settings", "bounds", "ids", "clock", "logs"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
# On the ground floor stand single files, which may lean on each other.
GROUND = FLOORS[0]

# Where a library, or a module of the house, is at home; whoever has no line here may be imported anywhere.
HOMES = {
    "fastapi": {"api"},
    "fastapi_offline": {"api"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "prometheus_client": {"api"},
    "asyncio": {"api", "client"},
    "httpx": {"client", "cli"},
    "pydantic": {"settings", "schemas", "client", "api"},
    "pydantic_settings": {"settings"},
    "typer": {"cli"},
    "rich": {"client", "cli"},
    "subprocess": {"jobs", "cli"},
    "multiprocessing": {"jobs", "worker", "cluster"},
    "ray": {"cluster"},
    "safetensors": {"codecs"},
    "jiter": {"codecs"},
    "simdjson": {"codecs"},
    "ulid": {"ids"},
    "structlog": {"logs"},
    "sqlalchemy": {"models"},
    "alembic": {"models"},
    "torch": {"lora", "training", "models", "engine", "worker", "api", "task"},
    "service.settings": {"api", "cli"},
}
# What starts in a blink because it imports no torch, nor anything that does.
LIGHT = [
    "client",
    "schemas",
    "codecs",
    "jobs",
    "cli",
    "__main__",
    "settings",
    "errors",
    "bounds",
    "ids",
    "clock",
    "logs",
]
LIGHT += ["lora.spec", "training.plan", "training.sources", "training.together", "training.cost", "training.fitted"]
LIGHT += ["training.digits", "training.digests"]

# Never here: they run code out of data, or reach out on their own.
BANNED = {"pickle", "cloudpickle", "dill", "joblib", "yaml", "marshal", "shelve", "requests", "urllib", "multipart"}


def name_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(HOUSE.rglob("*.py"))}


def imports(name: str, *, when_loaded: bool = False) -> set[str]:
    """The modules that a module imports anywhere in it, or only those it imports when it is loaded itself."""
    found = set()
    for node in loaded(MODULES[name]) if when_loaded else ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else str(node.module) for one in whole}
    return found


def loaded(tree: ast.AST):
    """The nodes of a module that run when it is loaded: all but the bodies of its functions."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from loaded(child)


def room(name: str) -> str:
    """The room of a module: `service.lora.spec` is in `lora`; the house's own front matter is in none."""
    return [*name.split("."), ""][1]


def of_the_house(names: set[str]) -> set[str]:
    return {name for name in names if name in MODULES}


def test_every_room_has_its_floor():
    assert {room(name) for name in MODULES} - {""} == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_or_stay_in_the_room(name):
    here = room(name)
    for imported in of_the_house(imports(name)):
        there = room(imported)
        if there in ("", here) or {here, there} <= GROUND:
            continue
        assert FLOOR[there] < FLOOR[here], f"{name} imports {imported}"


def test_the_house_itself_imports_nothing_of_itself():
    assert of_the_house(imports("service")) == set()


def test_the_mathematics_stands_on_the_ground_alone():
    for name in MODULES:
        if room(name) == "lora":
            assert {room(imported) for imported in of_the_house(imports(name))} <= {"lora", "", *GROUND}


def test_there_are_no_circles():
    graph = {name: of_the_house(imports(name)) - {name} for name in MODULES}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_at_home(name):
    for imported in imports(name):
        for library, homes in HOMES.items():
            if imported == library or imported.startswith(f"{library}."):
                assert room(name) in homes, f"{name} imports {imported}"


def test_every_home_is_lived_in():
    used = {
        library for name in MODULES for imported in imports(name) for library in HOMES if imported.startswith(library)
    }
    assert used == set(HOMES)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_that_runs_what_it_reads(name):
    assert not {imported.partition(".")[0] for imported in imports(name)} & BANNED


@pytest.mark.parametrize("light", LIGHT)
def test_what_must_be_light_loads_no_torch(light):
    reached = {name for name in MODULES if name == f"service.{light}" or name.startswith(f"service.{light}.")}
    waiting = list(reached)
    while waiting:
        name = waiting.pop()
        loading = imports(name, when_loaded=True)
        assert not any(imported.partition(".")[0] == "torch" for imported in loading), f"{light} loads torch by {name}"
        # Whoever loads a module loads the packages it is in.
        packages = {imported.rpartition(".")[0] for imported in loading}
        fresh = of_the_house(loading | packages) - reached
        reached |= fresh
        waiting += fresh
    assert reached


def test_nobody_loads_what_works_on_a_cluster_until_that_is_asked_for():
    for name in MODULES:
        if room(name) != "cluster":
            loading = imports(name, when_loaded=True)
            assert not {imported for imported in loading if imported.startswith(("service.cluster", "ray"))}, name


def test_nobody_evaluates_text():
    for name, tree in MODULES.items():
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "__import__", "compile"}, name


def test_nobody_loads_a_pickle_by_torch_or_numpy():
    for name, tree in MODULES.items():
        for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
            called = ast.unparse(call.func)
            asked = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert called not in ("torch.load", "torch.save"), name
            assert asked.get("allow_pickle", "False") == "False", name
            assert called != "np.load" or "allow_pickle" in asked, name
