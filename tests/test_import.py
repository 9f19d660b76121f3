"""``import headrace`` costs little, and brings what it says."""

import ast
import json
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import headrace

HEAVY = (
    *("asyncio", "concurrent", "email", "html", "http", "json", "logging", "multiprocessing"),
    *("selectors", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "unittest", "urllib"),
    *("importlib.metadata", "cattrs", "gguf", "httptools", "httpx", "msgspec", "numpy", "openai"),
    *("dotenv", "genai_prices", "httpx2", "opentelemetry", "tiktoken", "jiter", "json_repair"),
    *("jsonschema_rs",),
    *("pydantic", "requests", "rich", "starlette", "torch", "typer", "uvicorn", "uvloop"),
    *("xllamacpp", "yaml"),
)
"""Each means the module and all beneath it."""

# The interpreter's own start (and what site packages hook into it) is not ours, so only what is
# added by the import counts.
PROBE = """
import sys
def resident_kib():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    except OSError:
        return None
memory, modules = resident_kib(), set(sys.modules)
{statement}
after = resident_kib()
added = sorted(set(sys.modules) - modules)
import json
print(json.dumps([added, None if memory is None else after - memory]))
"""
STATEMENTS = ("import headrace", "from headrace import LLMRequest, LLMError")


def fresh(statement):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_import_loads_nothing_heavy(statement):
    added, _ = fresh(statement)
    assert "headrace" in added
    assert [m for m in added if any(m == h or m.startswith(f"{h}.") for h in HEAVY)] == []


def test_settings_load_no_engine_and_no_price_data():
    added, kib = fresh(
        "from headrace import Client, EndpointSettings, JsonlFile, OpenTelemetrySink"
    )
    heavy = {"genai_prices", "numpy", "opentelemetry", "pydantic", "rich", "starlette", "typer"}
    assert heavy & {name.partition(".")[0] for name in added} == set()
    assert kib is None or kib < 35_000


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_import_takes_less_than_35_mb(statement):
    _, kib = fresh(statement)
    if kib is None:
        pytest.skip("this system has no /proc/self/status to read the memory from")
    assert kib < 35_000


def test_a_plain_import_loads_no_contract_and_not_even_attrs():
    added, _ = fresh("import headrace")
    assert [m for m in added if m.startswith(("headrace.", "attr"))] == []


def test_a_contract_brings_attrs_and_little_besides():
    added, _ = fresh("from headrace import LLMRequest")
    ours = [m for m in added if m.partition(".")[0] not in sys.stdlib_module_names]
    assert {m.partition(".")[0] for m in ours} == {"headrace", "attr", "attrs"}
    assert len(added) < 100


@pytest.mark.parametrize("name", [n for n in headrace.__all__ if n != "__version__"])
def test_a_name_is_that_of_its_contract(name):
    home = next(h for h, names in headrace._HOMES.items() if name in names)
    assert getattr(headrace, name) is getattr(import_module(home), name)


def test_every_public_contract_can_be_imported_from_the_top():
    contracts = Path(headrace.__file__).parent / "contracts"
    public = set()
    for path in contracts.glob("[a-z]*.py"):
        if path.stem == "convert":  # functions, not contracts
            continue
        # The short names of a load test, a profile or a batch (Closed, Stats, KeptFile) mean it alone.
        if path.stem.startswith(("load", "profil", "batches")):
            continue
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ClassDef(name=name):
                    public.add(name)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                    public.add(name)
    beside = {"__version__"}
    for home, names in headrace._HOMES.items():
        if not home.startswith("headrace.contracts."):
            beside.update(names)
    assert set(headrace.__all__) - beside == {n for n in public if n[0] != "_"}


def test_all_that_a_client_is_made_with_can_be_imported_from_the_top():
    from attrs import fields

    from headrace.client.settings import Settings
    from headrace.traffic.endpoint import EndpointSettings

    text = " ".join(str(item.type) for cls in (Settings, EndpointSettings) for item in fields(cls))
    tests_only = {"Clock", "Transport"}
    named = set(re.findall(r"[A-Z]\w+", text)) - {"None"} - tests_only
    assert named >= {"Credentials", "EndpointSettings", "RetryPolicy", "BreakerPolicy", "Secret"}
    assert named <= set(headrace.__all__)


def test_a_type_checker_sees_what_an_import_gives():
    tree = ast.parse(Path(headrace.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {n.module: tuple(a.name for a in n.names) for n in block.body if hasattr(n, "module")}
    assert seen == headrace._HOMES


def test_the_version_is_that_of_the_installed_package():
    assert headrace.__version__ == metadata.version("headrace")


def test_a_listing_shows_the_names_before_they_are_used():
    assert set(headrace.__all__) <= set(dir(headrace))


def test_an_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="no attribute 'LLMReqest'"):
        headrace.LLMReqest  # noqa: B018
