"""Every mistake in a grid is one message: what is wrong, where, and what would work."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import cli
from harness.errors import UserError
from harness.grid import Axes, Budget, Exclude, Measure, Prepare, Training
from harness.grid_file import EXAMPLES, read_grid
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve

GOOD = '[grid]\nmodels = ["digits-cnn"]\n'
TASK = '[grid]\nmodels = ["digits-cnn"]\ntechniques = ["bf16"]\n'

FILES = {
    "no_import.py": "import a_package_that_is_not_there\n",
    "no_python.py": "def broken(:\n",
    "exits.py": "import os\nos._exit(3)\n",
    "quits.py": "import sys\nsys.exit(3)\n",
    "text.txt": "no Python\n",
    "twice.py": "from bench import technique\n\n@technique('bf16')\ndef other(subject):\n    'X'\n",
    "mine.py": (
        "import os\n"
        "def net():\n    return 1\n"
        "def number():\n    return 3\n"
        "def pair():\n    return 'module', 'inputs'\n"
        "def dies():\n    os.abort()\n"
    ),
}


def techniques(text: str) -> str:
    return f'[grid]\nmodels = ["digits-cnn"]\ntechniques = ["baseline", "{text}"]\n'


def models(text: str) -> str:
    return f'[grid]\nmodels = ["{text}"]\n'


# Found when the file is read: without a worker.
SHAPES = {
    "not TOML": ("models = [", r"g\.toml is not valid TOML: .*end of document"),
    "text without quotes": (
        "[grid]\nmodels = [digits-cnn]\n",
        r"g\.toml is not valid TOML: .*line 2",
    ),
    "an empty file": ("", r'^grid is missing in g\.toml\. For example: \[grid\] with models = \["'),
    "no grid table": ("[budget]\nrelative_ci = 0.1\n", r"^grid is missing in g\.toml\. For"),
    "a number as the grid table": ("grid = 3", r"^grid in g\.toml must be a table, got 3\. For ex"),
    "no models": (
        "[grid]\nthreads = [1]\n",
        r'^grid\.models is missing in g\.toml\. For example: models = \["',
    ),
    "empty models": (
        "[grid]\nmodels = []\n",
        r'^grid\.models in g\.toml is empty; it needs a value\. For example: models = \["',
    ),
    "an empty model name": (models(""), r"^grid\.models\[0\] in g\.toml is empty; .* models = \["),
    "empty techniques": (
        GOOD + "techniques = []\n",
        r'^grid\.techniques in g\.toml is empty; .* techniques = \["baseline"',
    ),
    "empty threads": (GOOD + "threads = []\n", r"^grid\.threads in .* empty; .* threads = \[1, 2"),
    "empty batch": (GOOD + "batch = []\n", r"^grid\.batch in .* is empty; .* batch = \[1, 64\]"),
    "an unknown key of the grid": (
        GOOD + "thread = [1]\n",
        r"^Unknown key grid\.thread in g\.toml\. Did you mean 'threads'\? Keys are models, tech",
    ),
    "an unknown key of the budget": (
        GOOD + "[budget]\nrelative_c = 0.1\n",
        r"^Unknown key budget\.relative_c in g\.toml\. Did you mean 'relative_ci'\? Keys are stop",
    ),
    "an unknown key of measure": (
        GOOD + '[measure]\nwaitpolicy = "active"\n',
        r"^Unknown key measure\.waitpolicy in g\.toml\. Did you mean 'wait_policy'\? Keys are ",
    ),
    "an unknown key of an exclusion": (
        GOOD + '[[exclude]]\ndevices = "cpu"\n',
        r"^Unknown key exclude\[0\]\.devices in g\.toml\. Did you mean 'device'\? Keys are mod",
    ),
    "an unknown table": (
        GOOD + '[exclud]\ndevice = "cpu"\n',
        r"^Unknown key exclud in g\.toml\. Did you mean 'exclude'\? Keys are grid, task, ",
    ),
    "a key with a line's end in it": (
        GOOD + '"a\\nb" = 1\n',
        r"^Unknown key grid\.'a\\nb' in g\.toml\. Keys are models",
    ),
    "an exclusion in single brackets": (
        GOOD + '[exclude]\ndevice = "cpu"\n',
        r"^exclude in g\.toml must be a list, got a table\. For example: \[\[exclude\]\] with ",
    ),
    "a word as threads": (
        GOOD + 'threads = "two"\n',
        r"^grid\.threads in g\.toml must be a list, got 'two'\. For example: threads = \[1, 2\]",
    ),
    "a word among threads": (
        GOOD + 'threads = [1, "two"]\n',
        r"^grid\.threads\[1\] in g\.toml must be a whole number, got 'two'\. For example: threads",
    ),
    "a bare model": (
        '[grid]\nmodels = "digits-cnn"\n',
        r"^grid\.models in g\.toml must be a list, got 'digits-cnn'\. For example: models = \[",
    ),
    "a long table as a model": (
        f'[grid]\nmodels = [{{name = "{"x" * 300}"}}]\n',
        r"^grid\.models\[0\] in g\.toml must be text in quotes, got a table\. For example: mod",
    ),
    "a bare fraction as batch": (
        GOOD + "batch = 1.5\n",
        r"^grid\.batch in g\.toml must be a list, got 1\.5\. For example: batch = \[1, 64\]",
    ),
    "a fraction in batch": (
        GOOD + "batch = [1.5]\n",
        r"^grid\.batch\[0\] in g\.toml must be a whole number, got 1\.5\. For example: batch",
    ),
    "a truth value in batch": (
        GOOD + "batch = [true]\n",
        r"^grid\.batch\[0\] in g\.toml must be a whole number, got true\. For example: batch",
    ),
    "a date in batch": (
        GOOD + "batch = [2026-01-31]\n",
        r"^grid\.batch\[0\] in g\.toml must be a whole number, got 2026-01-31\. For example: ",
    ),
    "a word as pin": (
        GOOD + '[measure]\npin = "yes"\n',
        r"^measure\.pin in g\.toml must be true or false, got 'yes'\. For example: pin = false",
    ),
    "a text as a number": (
        GOOD + '[budget]\nrelative_ci = "0.01"\n',
        r"^budget\.relative_ci in g\.toml must be a number, got '0\.01'\. For example: relative",
    ),
    "negative threads": (
        GOOD + "threads = [1, -2]\n",
        r"^grid\.threads\[1\] in g\.toml must be 1 or more, got -2\. For example: threads = \[",
    ),
    "zero batch": (
        GOOD + "batch = [0]\n",
        r"^grid\.batch\[0\] in g\.toml must be 1 or more, got 0",
    ),
    "a negative seed": (
        GOOD + "seeds = [-1]\n",
        r"^grid\.seeds\[0\] in g\.toml must be 0 or more, got -1\. For example: seeds = \[0\]",
    ),
    "an unknown device": (
        GOOD + 'devices = ["cpu", "cdua"]\n',
        r"^Unknown device 'cdua' in g\.toml \(devices\[1\]\)\. Did you mean 'cuda'\? Devices are",
    ),
    "an unknown runtime": (
        GOOD + 'runtimes = ["eagr"]\n',
        r"^Unknown runtime 'eagr' in g\.toml \(runtimes\[0\]\)\. Did you mean 'eager'\? Known: ",
    ),
    "an unknown wait policy": (
        GOOD + '[measure]\nwait_policy = "pasive"\n',
        r"^measure\.wait_policy in g\.toml must be 'active' or 'passive', got 'pasive'\. "
        r"Did you mean 'passive'\? For example: wait_policy = ",
    ),
    "an interval of zero": (
        GOOD + "[budget]\nrelative_ci = 0\n",
        r"^budget\.relative_ci in g\.toml must be more than 0, got 0\. For example: relative_ci =",
    ),
    "an interval that is no number": (
        GOOD + "[budget]\nrelative_ci = nan\n",
        r"^budget\.relative_ci in g\.toml must be a number, less than 1, got nan\. For example: re",
    ),
    "an endless timeout": (
        GOOD + "[budget]\ntimeout_s = inf\n",
        r"^budget\.timeout_s in g\.toml must be 1,000,000 or less, got inf\. For example: time",
    ),
    "too few rounds": (
        GOOD + "[measure]\nleast_rounds = 2\n",
        r"^measure\.least_rounds in g\.toml must be 6 or more, got 2\. For example: least_rounds",
    ),
    "a list in an exclusion": (
        GOOD + "[[exclude]]\nthreads = [2]\n",
        r"^exclude\[0\]\.threads in g\.toml must be a whole number, got a list\. For example: th",
    ),
}

# Found by a worker that looks the names up; those in ALL_THE_WAY go through the command itself,
# the others only save the time in which its worker server starts.
ALL_THE_WAY = {
    "an unknown model",
    "an unknown technique",
    "a parameter out of range",
    "an exclusion that matches nothing",
    "a plugin that fails to import",
    "a plugin that exits",
    "a plugin that quits",
    "a model file that is missing",
    "a model function that returns a number",
    "a data folder that is absent",
}
NAMES = {
    "an unknown model": (
        '[grid]\nmodels = ["digits-cnn", "mnist1d-cn"]\n',
        r"^Unknown model 'mnist1d-cn' in g\.toml \(models\[1\]\)\. Did you mean 'mnist1d-cnn'\? "
        r"`paretogrid list models` shows all \d+\.$",
    ),
    "an unknown technique": (
        techniques("int8-dynamc"),
        r"^Unknown technique 'int8-dynamc' in g\.toml \(techniques\[1\]\)\. Did you mean "
        r"'int8-dynamic'\? `paretogrid list techniques` shows all \d+\.$",
    ),
    "a pipeline that begins with plus": (
        techniques("+ bf16"),
        r"^techniques\[1\] in g\.toml: '\+ bf16' has an empty step\. Write steps as 'first \+ ",
    ),
    "a pipeline that ends with plus": (
        techniques("bf16 +"),
        r"^techniques\[1\] in g\.toml: 'bf16 \+' has an empty step\. Write steps as 'first \+ ",
    ),
    "a parenthesis that stays open": (
        techniques("prune-channels("),
        r"^techniques\[1\] in g\.toml: 'prune-channels\(' does not close its parenthesis\.",
    ),
    "a parenthesis that was never opened": (
        techniques("prune-channels)"),
        r"^techniques\[1\] in g\.toml: 'prune-channels\)' closes a parenthesis that was never op",
    ),
    "a parameter out of range": (
        techniques("prune-channels(1.5)"),
        r"^techniques\[1\] in g\.toml: prune-channels\(1\.5\): fraction must be from 0 to below 1"
        r", got 1\.5\.$",
    ),
    "a missing parameter": (
        techniques("prune-channels"),
        r"^techniques\[1\] in g\.toml: prune-channels: parameter 'fraction' is missing: .*"
        r"prune-channels\(fraction=",
    ),
    "an unknown parameter": (
        techniques("prune-channels(0.5, finetune_epoch=1)"),
        r"^techniques\[1\] in g\.toml: prune-channels\(0\.5, .*no parameter 'finetune_epoch'\. "
        r"Did you mean 'finetune_epochs'\? It takes the parameters fraction, ",
    ),
    "a parameter of another type": (
        techniques("prune-channels('half')"),
        r"^techniques\[1\] in g\.toml: prune-channels\('half'\): fraction must be a number, got ",
    ),
    "code as a parameter": (
        techniques("prune-channels(__import__('os').getpid())"),
        r"^techniques\[1\] in g\.toml: .*getpid\(\)\" is not a number, text or list\. Text needs ",
    ),
    "steps in the wrong order": (
        techniques("bf16 + prune-channels(0.5)"),
        r"^techniques\[1\] in g\.toml: 'bf16 \+ prune-channels\(0\.5\)': .* wrong order\. First ",
    ),
    "an exclusion that matches nothing": (
        TASK + '[[exclude]]\ntechnique = "bf16"\ndevice = "cuda"\n',
        r"^exclude\[0\] in g\.toml matches no cell of the grid: technique = 'bf16', "
        r"device = 'cuda'\. Name values that the grid has",
    ),
    "an unknown model in an exclusion": (
        TASK + '[[exclude]]\nmodel = "digit-cnn"\n',
        r"^Unknown model 'digit-cnn' in g\.toml \(exclude\[0\]\.model\)\. Did you mean 'digits-",
    ),
    "an empty exclusion": (
        TASK + "[[exclude]]\n",
        r"^exclude\[0\] in g\.toml is empty\. Name an axis, as in device = \"cuda\"\.$",
    ),
    "an exclusion of the baseline": (
        TASK + '[[exclude]]\ntechnique = "baseline"\n',
        r"^exclude\[0\] in g\.toml leaves out the baseline, which every ratio needs\. Name anoth",
    ),
    "exclusions that leave nothing": (
        TASK + '[[exclude]]\nmodel = "digits-cnn"\n',
        r"^The exclusions in g\.toml leave no cell to measure\. Leave one of them out\.$",
    ),
    "a plugin that is missing": (
        GOOD + 'plugins = ["absent.py"]\n',
        r"^plugins\[0\] in g\.toml: No such file: absent\.py\.",
    ),
    "a plugin that fails to import": (
        GOOD + 'plugins = ["no_import.py"]\n',
        r"^plugins\[0\] in g\.toml: no_import\.py fails to import: ModuleNotFoundError: No mod",
    ),
    "a plugin that is no Python": (
        GOOD + 'plugins = ["mine.py", "no_python.py"]\n',
        r"^plugins\[1\] in g\.toml: no_python\.py fails to import: SyntaxError: .*line 1",
    ),
    "a plugin that is no Python file": (
        GOOD + 'plugins = ["text.txt"]\n',
        r"^plugins\[0\] in g\.toml: text\.txt is not a Python file\.$",
    ),
    "a plugin that exits": (
        GOOD + 'plugins = ["exits.py"]\n',
        r"^plugins\[0\] in g\.toml cannot be loaded: it ended its worker \(exit\)\. Import the ",
    ),
    "a plugin that quits": (
        GOOD + 'plugins = ["quits.py"]\n',
        r"^plugins\[0\] in g\.toml: quits\.py fails to import: SystemExit: 3\. Put what is meant",
    ),
    "a plugin with a name that exists": (
        GOOD + 'plugins = ["twice.py"]\n',
        r"^plugins\[0\] in g\.toml: technique 'bf16' of .*twice\.py already exists in ",
    ),
    "a model file that is missing": (
        models("absent.py:net"),
        r"^models\[0\] in g\.toml: No such file: absent\.py\.",
    ),
    "a model file without the function": (
        models("mine.py:nett"),
        r"^models\[0\] in g\.toml: mine\.py has no function 'nett'\. Did you mean 'net'\?$",
    ),
    "a model function that returns a number": (
        models("mine.py:number"),
        r"^models\[0\] in g\.toml: Model 'mine\.py:number' returned int\. It must return a torch",
    ),
    "a model function that returns a wrong pair": (
        models("mine.py:pair"),
        r"^models\[0\] in g\.toml: Model 'mine\.py:pair' returned str as its module\. It must ret",
    ),
    "a model function that crashes": (
        models("mine.py:dies"),
        r"^models\[0\] in g\.toml cannot be loaded: it ended its worker \(crash\)\. Import the ",
    ),
    "a data folder that is absent": (
        models("digits-cnn(data='folder:nowhere')"),
        r"^models\[0\] in g\.toml: folder:nowhere is not a folder\. It needs one sub-folder for",
    ),
    "an unknown data set": (
        models("digits-cnn(data='digitz')"),
        r"^Unknown dataset 'digitz' in g\.toml \(models\[0\]\)\. Did you mean 'digits'\? `paret",
    ),
}


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its only message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARETOGRID_RESULTS", raising=False)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["paretogrid", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == ""
        assert not (tmp_path / "results").exists(), "a wrong grid left something behind"
        return only_message(printed.err)

    return run


def only_message(printed: str) -> str:
    assert "Traceback" not in printed
    lines = printed.splitlines()
    assert len(lines) == 1, printed
    assert lines[0].startswith("paretogrid: "), printed
    message = lines[0].removeprefix("paretogrid: ")
    assert message == message.strip(), "space at an end"
    assert "  " not in message and ".." not in message.replace("...", "")
    assert len(message) < 400
    return message


@pytest.mark.parametrize(("text", "wanted"), SHAPES.values(), ids=SHAPES)
def test_a_wrong_file_is_told_in_one_message(text, wanted, refuse):
    Path("g.toml").write_text(text)
    message = refuse("run", "g.toml")
    assert re.search(wanted, message), message


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the user's files, and a worker server that runs in it."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    with Launcher(cwd=folder) as launcher:
        yield folder, launcher


TABLES = {"grid": Axes, "exclude": Exclude, "budget": Budget, "measure": Measure,
          "prepare": Prepare, "training": Training}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_the_example_of_each_key_is_of_that_key_and_good(table):
    """Whoever got a value wrong is shown one that is right, and not another key."""
    for key in TABLES[table].model_fields:
        example = EXAMPLES[f"{table}.{key}"]
        assert example.startswith(f"{key} = ")
        given = {"models": ["digits-cnn"]} if table == "grid" else {}
        TABLES[table].model_validate(given | tomllib.loads(example))


@pytest.mark.parametrize("key", ["smallest_effect", "relative_ci", "max_seconds", "timeout_s"])
def test_a_number_that_is_none_is_said_to_be_none(key, refuse):
    Path("g.toml").write_text(f"{GOOD}[budget]\n{key} = nan\n")
    message = refuse("run", "g.toml")
    assert re.search(rf"budget\.{key} in g\.toml must be a number, .*got nan", message)


@pytest.mark.parametrize("case", sorted(NAMES.keys() - ALL_THE_WAY))
def test_a_wrong_name_is_refused_when_the_plan_is_made(case, workplace, monkeypatch):
    text, wanted = NAMES[case]
    folder, launcher = workplace
    monkeypatch.chdir(folder)
    Path("g.toml").write_text(text)
    with pytest.raises(UserError) as mistake:
        resolve(read_grid("g.toml"), launcher, "g.toml")
    message = only_message(f"paretogrid: {mistake.value}")
    assert re.search(wanted, message), message


@pytest.mark.parametrize("case", sorted(ALL_THE_WAY))
def test_a_wrong_name_is_told_in_one_message(case, refuse):
    text, wanted = NAMES[case]
    for name, content in FILES.items():
        Path(name).write_text(content)
    Path("g.toml").write_text(text)
    message = refuse("run", "g.toml")
    assert re.search(wanted, message), message


def test_a_missing_file_is_told_with_the_grids_that_exist(refuse):
    wanted = r"^No grid file absent\.toml\. Built-in grids are .*demo"
    assert re.search(wanted, refuse("run", "absent.toml"))


def test_a_folder_is_not_a_grid_file(refuse):
    Path("grids").mkdir()
    message = refuse("run", "grids")
    assert message == "grids is a folder. Give a grid file, such as grids/grid.toml."


def test_bytes_that_are_no_text_are_told(refuse):
    Path("g.toml").write_bytes(b"[grid]\n\xff\xfe\n")
    message = refuse("run", "g.toml")
    assert message == "g.toml is not UTF-8 text (byte 7). A grid file is TOML, saved as UTF-8."


def test_an_unknown_built_in_grid_gets_the_nearest_name(refuse):
    wanted = r"^No grid file and no built-in grid 'demmo'\. Built-in .*\. Did you mean 'demo'\?$"
    assert re.search(wanted, refuse("run", "demmo"))


def test_a_run_without_a_grid_is_told_what_to_give(refuse):
    assert re.search(r"^Give a grid \(`paretogrid run demo`\) or a model", refuse("run"))


@pytest.mark.parametrize("grid", [(), ("demo",)], ids=["alone", "beside a grid"])
def test_a_wrong_option_is_blamed_on_the_command_line(grid, refuse):
    message = refuse("run", *grid, "--model", "digits-cnn", "--threads", "0")
    wanted = "grid.threads[0] in the command line must be 1 or more, got 0. "
    assert message.startswith(wanted)


def test_results_that_cannot_be_written_are_told_before_anything_is_measured(refuse):
    Path("file").write_text("a file has no folders, for root neither")
    message = refuse("run", "--model", "digits-cnn", "--results", "file/results")
    wanted = "Cannot write results to file/results: Not a directory. Name another folder with --r"
    assert message.startswith(wanted)


def test_a_report_that_cannot_be_written_is_told(refuse, tmp_path):
    from harness.store import Run

    Path("file").write_text("")
    Run.create(tmp_path / "store", "empty", {})
    message = refuse("report", "--results", "store", "--reports", "file/reports")
    assert re.search(r"^Cannot write the report to file/.*: Not a directory\. Name ano", message)


def test_a_plugin_that_exits_does_not_break_the_list(refuse):
    Path("exits.py").write_text(FILES["exits.py"])
    assert refuse("list", "techniques", "--plugin", "exits.py").startswith("Cannot list techniq")


@pytest.mark.slow
def test_the_installed_command_ends_with_code_2_and_one_message(tmp_path):
    (tmp_path / "g.toml").write_text(techniques("int8-dynamc"))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "run", "g.toml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "Did you mean 'int8-dynamic'?" in only_message(ended.stderr)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("[gird]\nmodels = []\n", "Unknown key gird in g.toml. Did you mean 'grid'"),
     ('[grid]\nmodels = ["digits-mlp"]\ndevices = ["gpu"]\n', "Did you mean 'cuda'"),
     ('[grid]\nmodels = ["digits-mlp"]\ndevices = ["GPU:1"]\n', "Did you mean 'cuda'")],
)  # fmt: skip
def test_a_table_or_device_by_another_name_is_recognized(text, wanted, refuse):
    Path("g.toml").write_text(text)
    assert wanted in refuse("run", "g.toml")


def test_a_mistake_in_an_option_is_not_looked_for_in_the_file_alone(refuse):
    Path("g.toml").write_text('[grid]\nmodels = ["digits-mlp"]\ntechniques = ["bf16"]\n')
    message = refuse("run", "g.toml", "--technique", "bf61")
    assert "Unknown technique 'bf61' in g.toml, changed by --technique (techniques[0])" in message
