"""studies/ and configs/studies/: cells are configs, and tables say what run directories hold."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from configs import camvid_eighth, folder_small, paper
from configs import shapes as quickstart
from configs.studies import (
    camvid,
    camvid_continued,
    camvid_longer,
    camvid_resnet50,
    shapes,
    voc,
    voc_resnet50,
)
from rc2l_jax.run.config import validate
from studies import study, study_figures, study_report

ROOT = Path(__file__).parents[1]
CELLS = study_report.names_of(camvid.TABLES)
CONTINUED = study_report.names_of(camvid_continued.TABLES)
STEPS = camvid_eighth.get_config().num_steps

# Takes the place of main.py: a cell runs until it is told to stop, and then stops as runs do. When
# it is started again, it finishes at once.
MAIN = """
import json, pathlib, signal, sys, time
workdir = pathlib.Path(next(x for x in sys.argv if x.startswith("--workdir=")).partition("=")[2])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
workdir.mkdir(exist_ok=True)
again = (workdir / "config.json").exists()
(workdir / "config.json").write_text(json.dumps({"num_steps": 1, "argv": sys.argv[1:]}))
if "--stops" in sys.argv and not again:
    sys.exit(75)
for _ in range(0 if again else 600):
    time.sleep(0.1)
line = {"step": 1, "student_miou": None, "teacher_miou": 0.5}
(workdir / "evaluations.jsonl").write_text(json.dumps(line))
"""


def write_run(
    folder: Path,
    student: float | None,
    teacher: float | None,
    ious,
    step: int = STEPS,
    num_steps: int = STEPS,
    labels: int = 46,
    **metrics: float | None,
):
    """Writes those files of a run directory that reports read."""
    folder.mkdir(parents=True)
    scores = {"student_miou": student, "teacher_miou": teacher, "teacher_iou": ious}
    pseudo = {f"pseudo/{k}": v for k, v in metrics.items()}
    first = {"step": step // 2, "student_miou": 0.0, "teacher_miou": 0.1, "metrics": pseudo}
    last = {"step": step, **scores, "metrics": pseudo}
    (folder / "evaluations.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")
    config = {"num_steps": num_steps, "splits": {"labeled": {"examples": labels}}}
    (folder / "config.json").write_text(json.dumps(config))


def report(tables, output: Path) -> str:
    """The report on tables of `camvid.py`, as Markdown."""
    baselines = study_report.read_baselines(camvid.TABLES, output)
    return study_report.report(study_report.read_tables(tables, output), baselines)


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs study.py."""
    program = [sys.executable, str(ROOT / "studies" / "study.py"), *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_a_config_that_can_be_run(cell):
    method, partition, seed = cell.split("-")
    config = camvid.get_config(cell)
    validate(config, 1)
    labels = camvid.PARTITIONS[partition]
    assert config.data.labeled_split == ("train" if labels == 367 else f"train#{labels}@{seed}")
    assert config.seed == int(seed)
    same = camvid_eighth.get_config()
    for shared in ("num_steps", "batch_size", "unlabeled_batch_size", "warmup_steps"):
        assert config[shared] == same[shared]
    assert (config.unsup_weight == 0) == method.startswith("supervised")
    validate(camvid_resnet50.get_config(cell), 1)


@pytest.mark.parametrize("cell", CONTINUED)
def test_every_continued_cell_differs_from_the_run_it_starts_from_in_the_method_alone(cell):
    method, partition, seed = cell.split("-")
    config = camvid_continued.get_config(cell)
    validate(config, 1)
    assert partition == "eighth"
    start = camvid.get_config(Path(config.init_from).name)
    assert config.init_from == "runs/camvid/supervised-eighth-0" and start.seed == 0
    assert config.seed == int(seed)
    assert config.data == start.data, "the labelled images are those of seed 0, whatever the seed"
    assert config.model == start.model, "the network must be that of the run it goes on from"
    assert config.num_steps == start.num_steps / 4 == 3 * config.eval_every_steps
    assert config.unsup_start_step == 0 and config.unsup_ramp_steps < config.num_steps
    assert config.learning_rate == camvid.get_config(f"{method}-eighth-0").learning_rate / 2
    own = camvid.METHODS[method]
    assert config_values(config, own) == own


def valid_cell(of_study, cell: str) -> tuple:
    """A cell's config, which can be run, and what its method changes, which it has."""
    config, own = of_study.get_config(cell), of_study.METHODS[cell.split("-")[0]]
    validate(config, 1)
    assert config_values(config, own) == own
    return config, own


def config_values(config, keys) -> dict:
    """The values of some keys of a config, by their dotted names."""
    values = {}
    for key in keys:
        value = config
        for part in key.split("."):
            value = value[part]
        values[key] = value
    return values


def test_the_continued_tables_are_those_of_the_whole_study_without_what_cannot_go_on():
    assert {"queries", "partitions", "learning_rate"}.isdisjoint(camvid_continued.TABLES)
    for name, cells in camvid_continued.TABLES.items():
        left_out = set(camvid.TABLES[name]) - set(cells)
        assert all("burn_in" in cell for cell in left_out), left_out
    seeds = {"supervised-eighth-1", "rc2l-eighth-1", "supervised-eighth-2", "rc2l-eighth-2"}
    assert seeds < set(camvid_continued.TABLES["terms"])
    second_order = {"threshold_0.9-eighth-1", "threshold_0.9_negative-eighth-1"}
    assert set(CONTINUED) - set(CELLS) == second_order


@pytest.mark.parametrize("cell", camvid_longer.TABLES["eighth"])
def test_a_longer_cell_differs_from_the_usual_one_in_its_steps_alone(cell):
    config, usual = camvid_longer.get_config(cell), camvid.get_config(cell)
    validate(config, 1)
    assert config.num_steps == 2 * usual.num_steps == 8 * config.eval_every_steps
    for key in ("num_steps", "eval_every_steps"):
        config[key] = usual[key]
    assert config == usual


@pytest.mark.parametrize("cell", study_report.names_of(shapes.TABLES))
def test_a_cell_of_drawn_images_differs_from_the_quickstart_in_the_method_alone(cell):
    method, labels, seed = cell.split("-")
    config, own = valid_cell(shapes, cell)
    assert (config.unsup_weight == 0) == (method in ("supervised", "all_labels"))
    usual, steps = quickstart.get_config(), {"16": 900, "128": 1_200}[labels]
    split, rest = f"train#{labels}@{seed}", f"train#rest{labels}@{seed}"
    usual.update(seed=int(seed), num_steps=steps, eval_every_steps=steps // 2)
    usual.data.update(labeled_split=split, unlabeled_split=rest)
    usual.update_from_flattened_dict(own)
    assert config == usual


@pytest.mark.parametrize("cell", study_report.names_of(voc.TABLES))
def test_a_cell_of_voc_differs_from_the_small_config_in_the_method_alone(cell):
    method, labels, seed = cell.split("-")
    config, own = valid_cell(voc, cell)
    alone = ("supervised", "scratch", "tuned", "sampled", "longer", "head")
    supervised = method.split("_")[0] in alone and not method.endswith("_rc2l")
    assert (config.unsup_weight == 0) == supervised
    usual = folder_small.get_config().copy_and_resolve_references()
    assert config.data.labeled_split == f"lists/draw{seed}/{labels}.txt"
    usual.data.update(num_classes=21, labeled_split=config.data.labeled_split)
    usual.update_from_flattened_dict({"seed": int(seed), **own})
    assert config == usual


@pytest.mark.parametrize("cell", study_report.names_of(voc_resnet50.TABLES))
def test_a_cell_of_voc_for_a_gpu_differs_from_the_middle_one_as_the_small_one_does(cell):
    config, middle = voc_resnet50.get_config(cell), voc_resnet50.get_config()
    validate(config, 1)
    small, of_small = voc.get_config(cell).to_dict(), voc.get_config().to_dict()
    changed = {key for key in small if small[key] != of_small[key]}
    assert {key for key in small if config[key] != middle[key]} == changed
    assert config.model.backbone == "resnet50" and not config.model.freeze_backbone


def test_the_network_from_scratch_is_that_of_the_camvid_study():
    config, usual = voc.get_config("scratch-84-0"), camvid_eighth.get_config()
    assert config.model == usual.model and config.learning_rate == usual.learning_rate
    assert not config.init_from


def test_the_method_as_printed_is_that_of_the_papers_configs():
    config, printed = voc.get_config("printed-84-0"), paper.get_config()
    for part in ("unsup", "pseudo", "cutmix", "unsup_weight", "strong_color", "weak_color"):
        assert config[part] == printed[part]


def test_the_middle_cell_is_the_config_of_the_readme():
    assert camvid.get_config() == camvid_eighth.get_config() == camvid.get_config("rc2l-eighth-0")


def test_the_report_gives_means_deviations_and_gains_of_the_same_seed(tmp_path):
    ious = {"sky": 0.9, "pole": None}
    for seed, (baseline, ours) in enumerate([(0.30, 0.36), (0.40, 0.42), (0.35, 0.43)]):
        write_run(tmp_path / f"supervised-eighth-{seed}", baseline - 0.01, baseline, ious)
        write_run(tmp_path / f"rc2l-eighth-{seed}", ours, ours, ious, accuracy=0.5 + seed / 10)
    write_run(tmp_path / "rc2l-sixteenth-0", 0.2, 0.21, ious)
    write_run(tmp_path / "rc2l-half-0", 0.5, 0.51, ious, step=STEPS - 2)  # not finished
    for seed in range(2):
        write_run(tmp_path / f"rc2l-quarter-{seed}", 0.5, 0.5 + seed / 10, ious)
    tables = {name: camvid.TABLES[name] for name in ("partitions", "terms", "alpha")}
    tables["partitions"] = [*tables["partitions"], "rc2l-quarter-1"]
    lines = report(tables, tmp_path).splitlines()
    scores = ("0.403 ± 0.038 (gain 0.053 ± 0.031)", "0.210 (gain )", "0.550 ± 0.071 (gain )")
    assert f"| rc2l | {' | '.join(scores)} |" in lines
    assert "| supervised | 0.350 ± 0.050 |  |  |" in lines
    seeds = lines.index("## partitions, eighth, each seed")
    assert lines[seeds + 2 : seeds + 7] == [
        "|  | seed 0 | seed 1 | seed 2 | mean |",
        "|---|---|---|---|---|",
        "| supervised | 0.300 | 0.400 | 0.350 | 0.350 ± 0.050 |",
        "| rc2l | 0.360 | 0.420 | 0.430 | 0.403 ± 0.038 |",
        "| rc2l, gain | 0.060 | 0.020 | 0.080 | 0.053 ± 0.031 |",
    ]
    quarter = lines.index("## partitions, quarter, each seed")  # also of fewer runs
    assert "| rc2l | 0.500 | 0.600 | 0.550 ± 0.071 |" in lines[quarter:]
    classes = lines.index("## partitions, eighth, IoU of each class")
    assert lines[classes + 2] == "|  | supervised | rc2l |"
    assert "| sky | 0.900 ± 0.000 | 0.900 ± 0.000 |" in lines and "| pole |  |  |" in lines
    assert not any(line.startswith("## terms, ") for line in lines), "they are of one seed"
    # The table of terms has seed 0 only, so no deviations; supervised runs have no pseudo labels.
    assert "| supervised | 1 | 0.290 | 0.300 | 0.000 |  |  |  |" in lines
    assert "| rc2l | 1 | 0.360 | 0.360 | 0.060 | 0.500 |  |  |" in lines
    assert "0.51" not in "\n".join(lines)


def test_the_report_has_the_mean_of_each_group_of_classes_and_its_gain(tmp_path):
    for seed, (pole, ours) in enumerate([(0.1, 0.2), (0.3, None)]):
        ious = {"sky": 0.9, "pole": pole, "sign": 0.2}
        write_run(tmp_path / f"supervised-eighth-{seed}", 0.4, 0.4, ious)
        ious = {"sky": 0.8, "pole": ours, "sign": 0.3}
        write_run(tmp_path / f"rc2l-eighth-{seed}", 0.4, 0.4, ious)
    write_run(tmp_path / "rc2l-half-0", 0.4, 0.4, ious)
    tables = study_report.read_tables({"all": camvid.TABLES["partitions"]}, tmp_path)
    baselines = study_report.read_baselines(camvid.TABLES, tmp_path)
    groups = {"large": ("sky",), "small": ("pole", "sign")}
    lines = study_report.report(tables, baselines, groups).splitlines()
    start = lines.index("## all, mean IoU of groups of classes")
    assert lines[start + 2 : start + 8] == [
        "|  | labels | seeds | large | gain | small | gain |",
        "|---|---|---|---|---|---|---|",
        "| supervised | eighth | 2 | 0.900 ± 0.000 |  | 0.200 ± 0.071 |  |",
        "| rc2l | eighth | 2 | 0.800 ± 0.000 | -0.100 ± 0.000 | 0.275 ± 0.035 | 0.075 ± 0.035 |",
        "| rc2l | half | 1 | 0.800 |  | 0.300 |  |",
        "",
    ]


def test_the_groups_of_voc_are_its_classes_without_background():
    names = [name for group in voc.CLASS_GROUPS.values() for name in group]
    assert len(names) == len(set(names)) == voc.NUM_CLASSES - 1


def test_finished_cells_are_not_run_again_and_failed_ones_are_named(tmp_path):
    output = tmp_path / "runs"
    first, *others = camvid.TABLES["queries"]
    for cell in others:
        write_run(output / cell, 0.3, 0.3, {})
    done = command(
        "--study=configs/studies/camvid.py",
        f"--output={output}",
        "--tables=queries",
        "--",
        "--config.num_steps=-1",
    )
    assert done.returncode == 1
    assert done.stdout == f"{first}: status 1\n"
    assert f"{first} (status 1, see {output}/{first}.log)" in done.stderr
    assert "num_steps" in (output / f"{first}.log").read_text()


def test_a_score_that_is_none_leaves_its_place_empty(tmp_path):
    ious = {"sky": None}
    write_run(tmp_path / "supervised-eighth-0", None, 0.3, ious)
    write_run(tmp_path / "rc2l-eighth-0", 0.4, None, ious, accuracy=None, coverage=0.5)
    lines = report({"alpha": camvid.TABLES["alpha"]}, tmp_path).splitlines()
    assert "| rc2l | 1 | 0.400 |  |  |  |  | 0.500 |" in lines
    write_run(tmp_path / "supervised-eighth-1", 0.2, None, ious)
    lines = report({"partitions": camvid.TABLES["partitions"]}, tmp_path).splitlines()
    assert "| supervised | 2 | 0.200 | 0.300 | 0.000 |  |  |  |" in lines


def test_how_many_steps_a_run_has_is_what_it_was_told(tmp_path):
    short = tmp_path / "rc2l-eighth-0"
    write_run(short, 0.3, 0.3, {}, step=100, num_steps=100)
    assert study.finished(short, [])
    assert study.finished(short, ["--config.num_steps=100"])
    assert not study.finished(short, ["--config.num_steps=200"]), "it goes on when it is told to"
    (line,) = study.shortened(camvid, [short.name], tmp_path)
    assert f"has 100 steps and not {STEPS}; -- --config.num_steps={STEPS}" in line
    write_run(tmp_path / "rc2l-half-0", 0.3, 0.3, {}, num_steps=STEPS + 2)
    assert not study.finished(tmp_path / "rc2l-half-0", [])


def test_figures_are_drawn_of_what_is_finished(tmp_path):
    cells = {"supervised-eighth-0": 46, "rc2l-eighth-0": 46, "rc2l-half-0": 183}
    for (cell, labels), teacher in zip(cells.items(), (0.4, 0.5, 0.6)):
        pseudo = {"accuracy": 0.5, "coverage": 0.0} if "rc2l" in cell else {}
        write_run(tmp_path / cell, 0.3, teacher, {"sky": 0.3}, labels=labels, **pseudo)
    tables = study_report.read_tables(camvid.TABLES, tmp_path)
    baselines = study_report.read_baselines(camvid.TABLES, tmp_path)
    paths = study_figures.write_figures(tmp_path / "figures", "camvid", tables, baselines)
    names = {path.name for path in paths}
    assert names == {path.name for path in (tmp_path / "figures").iterdir()}
    assert {name for name in names if name.startswith("partitions")} == {
        "partitions_labels.png",
        "partitions_curves.png",
        "partitions_eighth_pseudo_labels.png",
        "partitions_half_pseudo_labels.png",
    }
    assert {"alpha_curves.png", "alpha_eighth_pseudo_labels.png"} < names
    assert "alpha_labels.png" not in names, "it has one partition"
    assert all(Image.open(path).width > 500 for path in paths)

    assert study_figures.over_seeds(tables["partitions"]) == "one seed"
    twice = [*tables["partitions"], tables["partitions"][0]]
    assert study_figures.over_seeds(twice) == "mean and deviation over 1 to 2 seeds"
    assert study_figures.over_labels(tables["partitions"]) == {
        "supervised": [{46: 0.4}],
        "rc2l": [{46: 0.5, 183: 0.6}],
    }
    eighth = [cell for cell in tables["partitions"] if cell.partition == "eighth"]
    panels = study_figures.pseudo_panels(eighth, baselines)
    steps = (STEPS // 2, STEPS)
    assert panels == {
        "segments right": {"rc2l": [dict.fromkeys(steps, 0.5)]},
        "covered": {"rc2l": [dict.fromkeys(steps, 0.0)]},
        "gain in mIoU": {"rc2l": [pytest.approx(dict(zip(steps, (0.0, 0.1))))]},
    }
    partitions = [
        dataclasses.replace(c, config=tables["partitions"][0].config) for c in tables["partitions"]
    ]
    pictures = study_figures.pictures_of(partitions, baselines, "")
    assert "labels" not in pictures, "the same number of labels twice, chosen in two ways"
    half = [cell for cell in tables["partitions"] if cell.partition == "half"]
    panels = study_figures.pseudo_panels(half, baselines)
    assert list(panels) == ["segments right", "covered"], "nothing to gain over"


def test_a_study_of_which_nothing_is_finished_says_so(tmp_path):
    done = command("--study=configs/studies/camvid.py", f"--output={tmp_path}", "--report")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no cell of learning_rate, partitions") and "finished" in line


def test_mistakes_of_a_study_are_said_in_one_line(tmp_path):
    (tmp_path / "config.py").write_text("def get_config(): ...\n")
    camvid = "--study=configs/studies/camvid.py"
    cases = {
        "--study=none.py": "no such file; those here are in configs/studies/",
        f"--study={tmp_path}/config.py": "is no study: it has no TABLES; those here are in",
        f"{camvid} --jobs=0": "--jobs=0: run at least one cell at a time",
        f"{camvid} --tables=none": "--tables=none: the study has",
    }
    for given, words in cases.items():
        done = command(*given.split(), f"--output={tmp_path}/runs")
        (line,) = done.stderr.splitlines()
        assert done.returncode and line.startswith("error: ") and words in line
        assert not (tmp_path / "runs").exists()


@pytest.fixture
def small(tmp_path):
    """A study of four cells, with `MAIN` as main.py: its folder, and a command that starts it."""
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "small.py").write_text(
        "from ml_collections import ConfigDict\n"
        "TABLES = {'all': ['a-b-0', 'a-b-1', 'a-b-2', 'a-b-3']}\n"
        "get_config = lambda cell: ConfigDict({'num_steps': 1})\n"
    )
    # Tests that run in the background ignore SIGINT, and so would the processes that they start.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    program += f"from studies import study; study.ROOT = Path({str(tmp_path)!r}); study.main()"
    arguments = ["--study=small.py", "--output=runs", "--jobs=2"]  # relative to its folder
    return tmp_path, [sys.executable, "-c", program, *arguments]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_stopped_stops_all_cells_and_a_second_start_goes_on(small, number):
    folder, program = small
    runs = folder / "runs"
    started = subprocess.Popen(
        program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(runs.glob("*/config.json"))) == 2)
    started.send_signal(number)
    output, errors = started.communicate(timeout=60)
    assert started.returncode == 75
    assert errors == "stopped: start the same command again, and it goes on\n"
    assert sorted(output.splitlines()) == ["a-b-0: stopped", "a-b-1: stopped"]
    assert not (runs / "a-b-2.log").exists()
    if number == signal.SIGTERM:  # the second start is tested for SIGINT only
        return
    for cell in ("a-b-2", "a-b-3"):
        (runs / cell).mkdir()
        (runs / cell / "config.json").write_text("{}")  # so that MAIN finishes at once
    again = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    said = "student mIoU none  teacher mIoU 0.5000"
    assert sorted(again.stdout.splitlines()) == [f"a-b-{seed}: {said}" for seed in range(4)]
    arguments = json.loads((runs / "a-b-3" / "config.json").read_text())["argv"]
    assert arguments == [f"--config={folder}/small.py:a-b-3", f"--workdir={runs}/a-b-3"]


def test_a_cell_that_was_told_to_stop_stops_the_study(small):
    folder, program = small
    done = subprocess.run(
        [*program, "--jobs=1", "--", "--stops"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 75 and done.stdout == "a-b-0: stopped\n"
    assert not (folder / "runs" / "a-b-1").exists()
