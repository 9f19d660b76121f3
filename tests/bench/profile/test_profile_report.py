"""The report of a profile in each of its forms."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import evolve

from bench.profile.reports import HOSTILE, a_bare_report, a_report
from headrace.bench.profile.report.files import write_all
from headrace.bench.profile.report.html import html
from headrace.bench.profile.report.markdown import markdown
from headrace.bench.profile.report.saved import completed, plain_of, read_file, read_report
from headrace.bench.report.writing import ReportNotWritten
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profile_report import Environment, Peak, Prediction


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._skipped = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipped += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.words.append(data)

    def with_attribute(self, name: str) -> list[dict[str, Any]]:
        return [a for _, a in self.tags if name in a]


def _at(plain: Any, path: str) -> Any:
    for step in re.findall(r"[^.\[\]]+", path):
        plain = plain[int(step)] if isinstance(plain, list) else plain[step]
    return plain


def test_every_figure_on_the_page_is_the_one_in_the_json(tmp_path: Path) -> None:
    write_all(a_report(), tmp_path)
    plain = json.loads((tmp_path / "report.json").read_bytes())
    page = _Page((tmp_path / "report.html").read_text())
    figures = [a for tag, a in page.tags if tag == "data"]
    assert len(figures) > 80
    for each in figures:
        assert float(each["value"] or "") == _at(plain, each["data-path"] or "")


def test_the_page_tells_what_the_json_has(tmp_path: Path) -> None:
    write_all(a_report(), tmp_path)
    plain = json.loads((tmp_path / "report.json").read_bytes())
    page = _Page((tmp_path / "report.html").read_text())
    told = {a["data-path"] for tag, a in page.tags if tag == "data"}
    for n, stage in enumerate(plain["stages"]):
        for name in ("share", "flops", "bytes", "mfu", "mbu", "of_floor", "flops_per_s"):
            assert (f"stages[{n}].{name}" in told) == (stage[name] is not None)
    for n, _ in enumerate(plain["operators"]):
        assert f"operators[{n}].total_time_ms" in told
    assert {"ttft_ms.mean", "tpot_ms.std", "summary.mfu_model_level", "peak_memory"} <= told
    words = "".join(page.words)
    for said in (
        plain["verdict"],
        plain["noise"]["text"],
        *(r["because"] for r in plain["recommendations"]),
        *(p["text"] for p in plain["peaks"]),
        *(o["op_name"] for o in plain["operators"]),
        *plain["uncounted"],
        *plain["conventions"],
        *plain["notes"],
        *(p["input"] for p in plain["predictions"]),
        *plain["environment"]["facts"].values(),
    ):
        assert said in words


def test_dots_of_the_roofline_lie_where_the_json_says(tmp_path: Path) -> None:
    write_all(a_report(), tmp_path)
    plain = json.loads((tmp_path / "report.json").read_bytes())
    dots = _Page((tmp_path / "report.html").read_text()).with_attribute("data-flops-per-s")
    assert len({dot["data-path"] for dot in dots}) == 3 + 5
    for dot in dots:
        of = _at(plain, dot["data-path"])
        rate, intensity = float(dot["data-flops-per-s"]), float(dot["data-intensity"])
        if "stage" in of and "op_name" not in of:
            assert (rate, intensity) == (of["flops_per_s"], of["intensity"])
            # What was reached is the work of all inputs over the time of all inputs.
            assert rate == pytest.approx(of["flops"] / (of["time_ms"]["mean"] / 1e3 * 10))
        else:
            assert rate == pytest.approx(of["flops"] / of["cuda_time_ms"] * 1e3)
            assert intensity == pytest.approx(of["flops"] / of["bytes"])
    # Both axes are logarithmic: equal ratios are equal distances.
    xs = {d["data-path"]: (float(d["cx"]), float(d["data-intensity"])) for d in dots}
    (x1, i1), (x2, i2), (x3, i3) = (xs[f"stages[{n}]"] for n in (1, 2, 3))
    assert (x1 - x3) / (x2 - x3) == pytest.approx(math.log(i1 / i3) / math.log(i2 / i3), abs=0.01)


def test_stage_bars_are_as_long_as_their_means() -> None:
    report = a_report()
    bars = _Page(html(report)).with_attribute("data-stage")
    widths = {bar["data-stage"]: float(bar["width"]) for bar in bars}
    for bar, stage in zip(bars, report.stages, strict=True):
        assert float(bar["data-mean"]) == stage.time_ms.mean
        assert float(bar["data-std"]) == stage.time_ms.std
        expected = stage.time_ms.mean / report.stages[-1].time_ms.mean
        assert widths[stage.stage] / widths["decode"] == pytest.approx(expected, abs=0.001)


def test_the_page_needs_nothing_from_elsewhere_and_runs_one_script_only() -> None:
    text = html(a_report())
    page = _Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "form", "base"}
        for name, value in attributes.items():
            assert name not in {"src", "srcset", "style"}
            assert not name.startswith("on")
            assert name != "href" or (value or "").startswith("#")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_hostile_words_stay_words() -> None:
    report = a_report()
    operators = (evolve(report.operators[0], op_name=HOSTILE, stage=HOSTILE), *report.operators)
    hostile = evolve(
        report,
        model_name=HOSTILE,
        verdict=HOSTILE,
        summary=evolve(report.summary, notes=HOSTILE),
        operators=operators,
        inputs=(HOSTILE,),
        predictions=(Prediction(input=HOSTILE, text=HOSTILE, finish_reason=HOSTILE),),
        uncounted=(HOSTILE,),
        conventions=(HOSTILE,),
        notes=(HOSTILE,),
        attention=HOSTILE,
        peaks=(
            Peak(
                source="measured", dtype=HOSTILE, flops_per_s=1e12, bytes_per_s=1e11, text=HOSTILE
            ),
        ),
        environment=Environment(device=HOSTILE, device_name=HOSTILE, facts={HOSTILE: HOSTILE}),
    )
    page = _Page(html(hostile))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "\u202e" not in html(hostile)
    assert "<script>alert(1)</script>" in "".join(page.words)
    written = markdown(hostile)
    outside_code = re.sub(r"`[^`]*`", "", written)
    assert not re.search(r"(?<!\\)<script", outside_code)
    assert not re.search(r"(?<!\\)\]\(http", outside_code)
    assert not re.search(r"^# head", written, re.M)


def test_a_run_that_was_stopped_says_so_and_has_no_figures_that_it_has_not() -> None:
    text = html(a_bare_report())
    words = "".join(_Page(text).words)
    assert "The run ended early" in words
    assert "No peak of this device is known" in words
    assert not re.search(r"\bnan\b", words.lower())
    assert "The run ended early" in markdown(a_bare_report())


def test_the_json_reads_back_as_the_same_report(tmp_path: Path) -> None:
    write_all(a_report(), tmp_path)
    found = read_file(tmp_path)
    assert evolve(found, notes=()) == evolve(completed(a_report()), notes=())


def test_another_format_is_refused_by_its_name() -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"'headrace\.load/1'; 'headrace\.profile/1'"):
        read_report('{"format": "headrace.load/1"}')
    with pytest.raises(LLMInvalidRequestError, match="not JSON"):
        read_report("{")
    plain = plain_of(a_report()) | {"stages": [{"stage": "prefill"}]}
    with pytest.raises(LLMInvalidRequestError, match=r"stages\[0\]"):
        read_report(json.dumps(plain))


def test_hashes_are_those_of_all_the_files(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "page.txt").write_text("Invoice")
    (tmp_path / "status.json").write_text("{}")
    write_all(a_report(), tmp_path, trace=b'{"traceEvents": []}')
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    found = dict(reversed(line.split("  ", 1)) for line in lines)
    assert {"report.json", "report.html", "predictions/page.txt", "trace.json.gz"} <= set(found)
    assert "status.json" not in found
    assert "SHA256SUMS" not in found
    for name, digest in found.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert gzip.decompress((tmp_path / "trace.json.gz").read_bytes()) == b'{"traceEvents": []}'


def test_operators_and_inputs_are_files_that_others_can_read(tmp_path: Path) -> None:
    report = a_report()
    write_all(report, tmp_path)
    if (tmp_path / "operators.csv").exists():
        rows = list(csv.DictReader((tmp_path / "operators.csv").read_text().splitlines()))
        notes = json.loads((tmp_path / "report.json").read_bytes())["notes"]
        assert any("pyarrow is not installed" in note for note in notes)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(tmp_path / "operators.parquet").to_pylist()
    assert [row["op_name"] for row in rows] == [o.op_name for o in report.operators]
    assert [float(row["total_time_ms"]) for row in rows] == [
        o.total_time_ms for o in report.operators
    ]
    said = yaml.safe_load((tmp_path / "inputs.yaml").read_text())
    assert said["request"]["model_path"] == "/models/eyes-3b"
    assert said["inputs"] == list(report.inputs)
    assert json.loads((tmp_path / "env.json").read_bytes())["facts"]["torch"] == "2.9.1+cu129"


def test_operators_are_a_parquet_table_with_the_json_s_values(tmp_path: Path) -> None:
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow is not installed: make test-profile"
    )
    write_all(a_report(), tmp_path)
    assert not (tmp_path / "operators.csv").exists()
    table = parquet.read_table(tmp_path / "operators.parquet")
    # What is not known is null there, and never a zero or a NaN.
    assert table.to_pylist() == json.loads((tmp_path / "report.json").read_bytes())["operators"]
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds.pop("op_name") == kinds.pop("stage") == "string"
    assert kinds.pop("calls") == "int64"
    assert set(kinds.values()) == {"double"}


def test_each_prediction_is_a_file_below_the_report_whatever_its_input_is_called(
    tmp_path: Path,
) -> None:
    names = ("a.png", "../up.png", ".hidden.png", "q.jsonl:1", "q.jsonl_1", "x" * 300)
    said = tuple(Prediction(input=name, text=f"said to {n}") for n, name in enumerate(names))
    write_all(evolve(a_report(), predictions=said), tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out" / "predictions").iterdir())
    assert found == [
        *("_up.png.txt", "a.png.txt", "hidden.png.txt"),
        *("q.jsonl_1-2.txt", "q.jsonl_1.txt", "x" * 100 + ".txt"),
    ]
    assert (tmp_path / "out" / "predictions" / "a.png.txt").read_text() == "said to 0\n"


def test_a_mark_of_an_early_end_is_there_only_as_long_as_it_is_true(tmp_path: Path) -> None:
    write_all(evolve(a_bare_report(), ended="out of memory"), tmp_path)
    assert "out of memory" in (tmp_path / "INCOMPLETE.txt").read_text()
    assert "INCOMPLETE.txt" not in (tmp_path / "SHA256SUMS").read_text()
    write_all(a_report(), tmp_path)
    assert not (tmp_path / "INCOMPLETE.txt").exists()


def test_what_cannot_be_written_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportNotWritten) as told:
        write_all(a_report(), tmp_path)
    assert "report.html cannot be written" in str(told.value)
    assert (tmp_path / "report.json").exists()
    assert (tmp_path / "report.md").exists()
