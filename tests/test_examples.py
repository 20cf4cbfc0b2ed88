"""Every example runs as a user runs it, shows what it promises, and is named on both front pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import Service

ROOT = Path(__file__).parents[1]
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if "__main__" in path.read_text()]


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"examples/{name}.py", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=ROOT)


def shown(name: str, *options: str) -> str:
    """What an example prints; it must succeed without a word on the error output."""
    ended = run(name, *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    return ended.stdout


@pytest.mark.parametrize("page", ["README.md", "README.es.md"])
def test_both_pages_say_how_each_example_is_run(page: str) -> None:
    named = re.findall(r"^\S+python (examples/\S+)", (ROOT / page).read_text(), re.MULTILINE)
    assert sorted(named) == [str(path.relative_to(ROOT)) for path in EXAMPLES]


def test_each_tenants_adapter_finds_what_neither_the_embedding_nor_the_others_find(service: Service) -> None:
    output = shown("tenants", "--url", service.url)
    rows = re.findall(r"│ (place|event|wish) +│ +([\d.]+)% │ +([\d.]+)% │ +([\d.]+)% │", output)
    assert [by for by, *_ in rows] == ["place", "event", "wish"]
    page = (ROOT / "README.md").read_text()
    told = re.findall(r"^\|[^|]+\| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    for (_, *measured), published in zip(rows, told, strict=True):
        assert [float(share) for share in measured] == pytest.approx([float(share) for share in published], abs=4)
    for _, embedding, own, others in rows:
        assert float(own) > float(embedding) + 15
        assert float(own) > 60
        assert float(others) < float(embedding)


def test_the_adapter_of_a_layer_goes_back_into_its_transformer() -> None:
    output = shown("transformer_layer")
    plain, adapted, merged = (float(number) for number in re.findall(r"│ +([\d.]+e[-+]\d+) │", output))
    assert plain > 1
    assert adapted < 1e-3
    assert merged <= 1e-5
    assert float(re.findall(r"^([\d.]+)% of the way", output, re.MULTILINE)[0]) > 99


def test_no_phrase_that_is_held_out_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import tickets

    held_out = tickets.tickets(300, 0, held_out=True)
    assert len(set(held_out)) == 300
    phrases = {phrase for kind in tickets._phrases().values() for names in kind.values() for phrase in names[-2:]}
    for ticket in tickets.tickets(600, 0, held_out=False):
        place, rest = ticket.text.split(", ", 1)
        assert place not in phrases
        assert rest.rpartition(". ")[2] not in phrases
        assert not {phrase for phrase in phrases if f" {phrase}." in rest}


def test_where_no_service_answers_an_example_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", ["example.py", "--url", "http://127.0.0.1:9"])
    import running

    assert running.run(lambda client, console: console.print(client.limits()), "An example.") == 5
    assert re.fullmatch(r"example\.py: .*does not answer.*\n", capsys.readouterr().err)


def test_every_example_is_run_by_the_same_lines() -> None:
    for example in EXAMPLES:
        assert re.search(r"^    sys\.exit\(run\(", example.read_text(), re.MULTILINE), example.name
