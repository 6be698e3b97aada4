"""The command line: what it prints, and its exit statuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import mcgrad
from mcgrad.__main__ import main

PROGRAM = """
import jax, jax.numpy as jnp, mcgrad

def loss(logits, key):
    return jnp.mean(jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="bits") ** 2.0, axis=-1))

def example_args():
    return jnp.zeros((4, 3)), jax.random.key(0)
"""


def run_without_test_settings(*arguments):
    """As a user runs it: a process of its own, JAX as it comes."""
    command = [sys.executable, "-m", "mcgrad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, check=False)


def test_demo_trains_and_writes_its_picture(tmp_path):
    done = run_without_test_settings("demo", "--steps", 20, "--num-samples", 2, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    picture = tmp_path / "autoencoders.png"
    assert str(picture) in done.stdout and picture.stat().st_size > 10_000
    for word in ("held-out ELBO", "gradient variance", "leave-one-out of 2", "Gaussian, pathwise"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "at least 1"),
        (["--steps", "many"], "whole number"),
        (["--seed", "-1"], "at least 0"),
        (["--num-samples", "1"], "at least 2"),
        (["--output", __file__], "must be a folder"),
    ],
)
def test_bad_values_are_errors_with_status_2(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_extras_are_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--steps", "1"]) == 2
    assert 'pip install ".[demo]"` in a clone' in capsys.readouterr().err
    assert main(["compare", "model.py:loss"]) == 2
    assert 'pip install ".[diagnostics]"` in a clone' in capsys.readouterr().err


def test_explain_prints_draws_and_credit(tmp_path, capsys):
    path = tmp_path / "model.py"
    path.write_text(PROGRAM)
    assert main(["explain", f"{path}:loss"]) == 0
    printed = capsys.readouterr().out
    assert "bits: Bernoulli, plates (4, 3), Enumerate" in printed
    assert "axis 0 same, axis 1 same" in printed


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (PROGRAM, "{path}", "FILE.py:FUNCTION"),
        (PROGRAM, "{path}x:loss", "no file"),
        (PROGRAM, "{path}:nothing", "no function `nothing`"),
        ("def loss(key): return 1.0", "{path}:loss", "example_args()"),
    ],
)
def test_explain_says_what_is_missing(text, target, message, tmp_path, capsys):
    path = tmp_path / "model.py"
    path.write_text(text)
    assert main(["explain", target.format(path=path)]) == 2
    assert message in capsys.readouterr().err


def test_compare_prints_its_table_and_writes_its_picture(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(PROGRAM)
    options = ("--estimators", "score,enumerate,pathwise", "--samples", 512, "--seed", 1, "--output", tmp_path / "out")
    done = run_without_test_settings("compare", f"{path}:loss", *options)
    assert done.returncode == 0, done.stderr
    picture = tmp_path / "out" / "estimators.png"
    assert str(picture) in done.stdout and picture.stat().st_size > 10_000
    for word in ("512 gradients", "agrees", "pathwise was refused", "the exact gradient"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--estimators", "score,best"], "must be among .*enumerate, .*, got 'best'"),
        (["--samples", "1"], "at least 2"),
        (["--seed", "x"], "whole number"),
        (["--output", __file__], "must be a folder"),
    ],
)
def test_bad_values_of_compare_are_errors_with_status_2(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "model.py:loss", *options])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(("target", "message"), [("{path}x:loss", "no file"), ("{path}:loss", "Bernoulli is discrete")])
def test_compare_says_what_is_wrong(target, message, tmp_path, capsys):
    path = tmp_path / "model.py"
    path.write_text(PROGRAM)
    assert main(["compare", target.format(path=path), "--estimators", "pathwise"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "compare"])
def test_a_folder_that_cannot_be_written_is_seen_before_the_work(command, tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr("mcgrad.demo.run", None)
    monkeypatch.setattr("mcgrad.compare", None)
    arguments = [command, f"{path}:loss"] if command == "compare" else [command]
    assert main([*arguments, "--output", str(path / "below a file")]) == 2
    assert "must be a folder that can be written to" in capsys.readouterr().err


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"mcgrad {mcgrad.__version__}\n"


def test_doctor_prints_what_a_report_needs(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in (f"mcgrad {mcgrad.__version__}", f"jax {jax.__version__}", "rich", "devices: cpu 0", "float64: on"):
        assert word in printed


def test_no_file_tells_to_install_by_name():
    """`mcgrad` on the package index is another project; this one installs from a clone."""
    by_name = re.compile(r"(?:install|add)(?:\s+-\S+)*\s+[\"'`]?mcgrad")
    assert by_name.search("pip install -U " + "mcgrad") and by_name.search("pip install " + '"mcgrad[demo]"')
    assert not by_name.search('Install with `pip install ".[demo]"` in a clone of mcgrad.')
    root = Path(__file__).parent.parent
    files = [root / ".ci/run", *root.glob("*.*")]
    files += [
        path for folder in ("mcgrad", "tests", "benchmarks", "notebooks") for path in (root / folder).rglob("*.*")
    ]
    texts = [path for path in files if path.suffix in ("", ".py", ".md", ".ipynb", ".toml", ".cff", ".yaml")]
    texts = [path for path in texts if path.is_file() and ".environments" not in path.parts]
    assert len(texts) > 100
    assert [path for path in texts if by_name.search(path.read_text(encoding="utf-8"))] == []
