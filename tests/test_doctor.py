"""The doctor reports what is broken as a line with a remedy, whatever is broken, and shows no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from worlds import scripted_recipe, selftrain

from selftrain import doctor
from selftrain.doctor import devices, isolation, libraries, outside, recipes, storage
from selftrain.doctor.findings import Finding, note, ok, problem
from selftrain.errors import ConfigError, DiskError
from selftrain.scoring.sandbox import Probe, Tier, selftest

SECRETS = {"HF_TOKEN": "hf_notToBeShown", "WANDB_API_KEY": "keyNotToBeShown"}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No machine of the tests has its own hub, key or launcher in the way."""
    for name in (*outside.OFFLINE, *SECRETS, "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "WANDB_MODE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    monkeypatch.setenv("WANDB_BASE_URL", NOBODY)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def only(findings: Iterator[Finding], words: str) -> Finding:
    found = [one for one in findings if words in one.text]
    assert len(found) == 1, (words, [one.text for one in found])
    return found[0]


# The whole


@pytest.mark.slow
def test_a_sound_machine_has_no_problem_and_no_secret_is_shown(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    done = selftrain(
        *("doctor", recipe.parent, "--runs-dir", tmp_path / "runs", "--json"),
        **SECRETS,
        HF_ENDPOINT=f"http://user:password@{NOBODY.removeprefix('http://')}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["exit_code"] == 0
    assert {one["area"] for one in said["findings"]} >= {"Python", "torch", "runs", "hub", "W&B", "sandbox", "recipe"}
    assert not [one for one in said["findings"] if one["status"] == "problem"]
    assert any("can be imported" in one["text"] for one in said["findings"])
    for secret in (*SECRETS.values(), "password"):
        assert secret not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_the_exit_code_is_69_where_something_is_missing_and_else_the_first_problems() -> None:
    missing, disk = problem("a", "x", "y"), problem("b", "x", "y", DiskError)
    assert doctor.exit_code([ok("a", "fine"), note("a", "known")]) == 0
    assert doctor.exit_code([disk, problem("c", "x", "y", ConfigError)]) == 74
    assert doctor.exit_code([disk, missing]) == 69


def test_a_line_names_status_and_remedy_and_cannot_move_the_cursor() -> None:
    lines = doctor.render(problem("a", "it\x1b[2J is\nbroken", "mend it")).splitlines()
    assert lines == ["  problem  it is broken", "           -> mend it"]


def test_the_report_ends_with_the_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [ok("one", "fine"), note("one", "known"), problem("two", "gone", "get it")]
    monkeypatch.setattr(doctor, "examine", lambda recipe, runs_dir: iter(found))
    assert doctor.show_doctor(None, runs_dir=Path(), as_json=False) == 69
    assert capsys.readouterr().out.splitlines() == [
        "one",
        "  ok       fine",
        "  note     known",
        "two",
        "  problem  gone",
        "           -> get it",
        "1 problem, 1 note",
    ]


def test_a_check_that_breaks_off_is_a_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> Iterator[Finding]:
        yield ok("hub", "so far")
        raise RuntimeError("out of luck")

    def nothing(*_: object) -> Iterator[Finding]:
        return iter(())

    monkeypatch.setattr(outside, "hub", breaks)
    monkeypatch.setattr(devices, "torch_and_imports", nothing)
    monkeypatch.setattr(isolation, "check", nothing)
    found = list(doctor.examine(None, Path()))
    assert only(iter(found), "so far").status == "ok"
    assert only(iter(found), "RuntimeError: out of luck").exit_code == 70
    assert found[-1].area == "launcher"


def test_nothing_that_can_be_broken_is_imported_by_the_doctor_itself() -> None:
    heavy = ("torch", "transformers", "peft", "trl", "datasets", "wandb", "accelerate", "pyarrow", "scipy", "numpy")
    code = f"import sys, selftrain.doctor, selftrain.beginning; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Libraries


def fake_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = libraries.installed

    def installed(name: str) -> Version | None:
        if name in versions:
            found = versions[name]
            return None if found is None else Version(found)
        return real(name)

    monkeypatch.setattr(libraries, "installed", installed)


def test_a_missing_dependency_is_a_problem_with_the_tested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, peft=None)
    found = only(libraries.dependencies(), "peft")
    assert (found.status, found.exit_code) == ("problem", 69)
    assert found.remedy == f"pip install 'peft=={libraries.tested()['peft']}'"


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("1.0", "problem", "selftrain needs"),
        ("5.99.0", "note", "newer than the tested"),
        (None, "ok", "transformers"),
        ("5.21.0", "ok", "(tested: "),
    ],
)
def test_a_version_is_held_against_the_range_and_the_tested_one(
    monkeypatch: pytest.MonkeyPatch, version: str | None, status: str, words: str
) -> None:
    known = str(libraries.tested()["transformers"])
    fake_versions(monkeypatch, transformers=version or known)
    found = only(libraries.dependencies(), "transformers")
    assert found.status == status
    assert words in found.text


def test_a_build_for_some_hardware_is_not_a_newer_version(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, torch=f"{libraries.tested()['torch']}+cu130")
    assert only(libraries.dependencies(), "torch ").status == "ok"


def test_every_direct_dependency_has_a_tested_version() -> None:
    needed, _ = libraries.requirements()
    assert len(needed) > 10
    assert not [one.name for one in needed if one.name.lower() not in libraries.tested()]


def test_an_installed_selftrain_reads_its_metadata_and_its_own_list_of_tested_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site-packages" / "selftrain"
    package.mkdir(parents=True)
    (package / "_constraints.txt").write_text("# a comment with ==\ntorch==9.9.9\n")
    metadata = tmp_path / "site-packages" / "selftrain-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.4\nName: selftrain\nVersion: 9.9\nRequires-Dist: torch>=2.8\nProvides-Extra: dev\n"
        "Requires-Dist: pytest>=8; extra == 'dev'\nProvides-Extra: tensorboard\n"
        "Requires-Dist: tensorboard>=2.20; extra == 'tensorboard'\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(libraries, "PACKAGE", package)
    libraries.requirements.cache_clear()
    libraries.tested.cache_clear()
    try:
        needed, extras = libraries.requirements()
        assert [str(one) for one in needed] == ["torch>=2.8"]
        assert {name: [one.name for one in of] for name, of in extras.items()} == {"tensorboard": ["tensorboard"]}
        assert libraries.tested() == {"torch": Version("9.9.9")}
    finally:
        libraries.requirements.cache_clear()
        libraries.tested.cache_clear()


def test_an_extra_says_what_it_is_for_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, bitsandbytes=None, tensorboard="1.0", trackio="99.0")
    found = list(libraries.extras())
    quantized = only(iter(found), "bitsandbytes")
    assert quantized.status == "note"
    assert "model.quantization" in quantized.text
    assert "pip install 'bitsandbytes>=" in str(quantized.remedy)
    assert "(needed: >=2.20)" in only(iter(found), "tensorboard").text
    assert only(iter(found), "trackio").status == "ok"


# torch and imports


def module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def test_a_package_that_raises_crashes_or_hangs_is_reported_and_the_next_is_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, "raises_it", "raise ImportError('libcudart.so.12: cannot open')")
    module(tmp_path, "crashes_it", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    module(tmp_path, "hangs_it", "import time; time.sleep(60)")
    module(tmp_path, "exits_it", "import os; os._exit(3)")
    module(tmp_path, "talks", "print('hello'); print('[1]')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    modules = ["talks", "raises_it", "crashes_it", "hangs_it", "exits_it", "json"]
    start = time.monotonic()
    found = list(devices.imports(modules, seconds=3.0))
    assert time.monotonic() - start < 20
    assert [one.status for one in found] == ["problem"] * 4
    said = [one.text for one in found]
    assert "raises_it raises ImportError: libcudart.so.12: cannot open" in said[0]
    assert "crashes_it crashes the interpreter (signal 9)" in said[1]
    assert "hangs_it takes longer than 3 s" in said[2]
    assert "exits_it ends the interpreter with 3" in said[3]


def test_imports_that_work_are_one_line() -> None:
    found = list(devices.imports(["json", "yaml"]))
    assert [(one.status, one.text[:31]) for one in found] == [("ok", "all 2 dependencies can be impor")]


def test_a_torch_that_cannot_be_asked_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "TORCH", "raise OSError('libtorch_cuda.so is missing')")
    found = list(devices._torch())
    assert [one.exit_code for one in found] == [69]
    assert "libtorch_cuda.so is missing" in found[0].text


GPU = {"name": "H200", "free": 100 * 2**30, "total": 139 * 2**30, "bf16": True, "works": True}


@pytest.mark.parametrize(
    ("changes", "has_gpu", "status", "words"),
    [
        ({}, True, "ok", "cuda:0: H200, 100.0 GiB of 139.0 GiB free, bfloat16 yes"),
        ({"free": 2**30}, True, "note", "another program has most of it"),
        ({"bf16": False}, True, "note", "bfloat16 no"),
        ({"works": False}, True, "problem", "multiplies wrongly"),
    ],
)
def test_a_gpu_is_described(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], has_gpu: bool, status: str, words: str
) -> None:
    monkeypatch.setattr(devices, "GPU_DEVICES", ("/dev/null",) if has_gpu else ())
    said = {"version": "2", "cuda": "13.0", "hip": None, "threads": 4, "devices": [{**GPU, **changes}], "error": None}
    assert only(devices.torch_findings(said), words).status == status


@pytest.mark.parametrize(
    ("cuda", "error", "has_gpu", "status", "words"),
    [
        (None, None, True, "note", "this torch is built for CPUs"),
        ("13.0", None, True, "note", "torch sees none"),
        ("13.0", "RuntimeError: driver too old", True, "problem", "driver too old"),
        (None, None, False, "note", "no GPU"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, error: str | None, has_gpu: bool, status: str, words: str
) -> None:
    monkeypatch.setattr(devices, "GPU_DEVICES", ("/dev/null",) if has_gpu else ("/dev/not-there",))
    said = {"version": "2", "cuda": cuda, "hip": None, "threads": 4, "devices": [], "error": error}
    assert only(devices.torch_findings(said), words).status == status


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_limit_of_a_container_is_read(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert devices.cpu_quota(tmp_path) == expected


def test_more_threads_than_cores_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert (
        only(devices._threads(), "more threads than cores").remedy == f"OMP_NUM_THREADS={len(os.sched_getaffinity(0))}"
    )


# Storage


def test_everything_a_run_does_to_files_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    found = list(storage.check(tmp_path / "runs"))
    assert not [one for one in found if one.status == "problem"]
    assert "locks (flock)" in only(iter(found), "works there").text
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_problem_of_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    # root may write everywhere but where the kernel makes no files at all
    where = Path("/proc") if os.geteuid() == 0 else folder
    found = only(storage._trials(where), "cannot be written")
    assert (found.status, found.exit_code) == ("problem", 74)


def test_a_file_system_without_locks_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TAKES_THE_LOCK", "")  # a second process is never refused
    found = only(storage._trials(tmp_path), "locks (flock) does not work")
    assert "two runs could write the same directory" in found.text
    assert found.exit_code == 74


def test_locks_that_are_not_supported_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TAKES_THE_LOCK", "raise OSError(38, 'Function not implemented')")
    assert "Function not implemented" in only(storage._trials(tmp_path), "locks (flock) does not work").text


def test_a_rename_or_a_link_that_fails_is_a_problem_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuses)
    monkeypatch.setattr(Path, "symlink_to", refuses)
    found = list(storage._trials(tmp_path))
    assert [one.status for one in found] == ["ok", "problem", "problem"]
    assert "renaming over a file does not work" in found[1].text
    assert "symbolic links does not work" in found[2].text


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("nfs4", "note", "network"),
        ("fuse.sshfs", "note", "network"),
        ("overlay", "note", "goes when the container goes"),
        ("tmpfs", "note", "in memory"),
        ("ext4", "ok", "local"),
    ],
)
def test_the_kind_of_file_system_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, status: str, words: str
) -> None:
    monkeypatch.setattr(storage, "file_system", lambda folder: kind)
    found = storage._kind("runs", tmp_path)
    assert (found.status, words in found.text) == (status, True)


def test_the_nearest_and_last_mount_counts(tmp_path: Path) -> None:
    inner = tmp_path / "with space"
    inner.mkdir()
    mounts = tmp_path / "mounts"
    written = str(inner).replace(" ", "\\040")
    lines = (
        "dev / ext4",
        f"server:/x {tmp_path} nfs4",
        f"a {written} xfs",
        f"b {tmp_path}x btrfs",
        f"c {tmp_path} tmpfs",
    )
    mounts.write_text("".join(f"{line} rw 0 0\n" for line in lines))
    assert storage.file_system(inner, mounts) == "xfs"
    assert storage.file_system(tmp_path, mounts) == "tmpfs"
    assert storage.file_system(Path("/"), mounts) == "ext4"
    assert storage.file_system(tmp_path, tmp_path / "no-such-file") == "unknown"


@pytest.mark.parametrize(("free", "status"), [(2**20, "problem"), (5 * 2**30, "note"), (2**40, "ok")])
def test_little_space_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str) -> None:
    class Usage:
        pass

    usage = Usage()
    usage.free = free  # type: ignore[attr-defined]
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: usage)
    assert storage._space("runs", tmp_path, tmp_path).status == status


# Outside


@pytest.fixture
def server() -> Iterator[str]:
    """Answers every request with 404."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_any_status_is_an_answer(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert outside.answers(server) is None


def test_nobody_there_is_no_answer_and_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    start = time.monotonic()
    assert "does not answer" in str(outside.answers(NOBODY))
    assert time.monotonic() - start < 2


def test_a_name_that_takes_for_ever_to_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    start = time.monotonic()
    assert outside.answers("http://slow.invalid", seconds=0.2) == "does not answer within 0.2 s"
    assert time.monotonic() - start < 2


def test_the_hub_is_never_a_problem_and_offline_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.status for one in outside.hub()} <= {"ok", "note"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(outside, "answers", lambda url: pytest.fail("nothing is asked"))
    assert "HF_HUB_OFFLINE" in only(outside.hub(), "only what is in the cache").text


def test_tokens_are_found_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(outside.hub(), "no token").status == "note"
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(SECRETS["HF_TOKEN"])
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {SECRETS['WANDB_API_KEY']}\n")
    found = [*outside.hub(), *outside.weights_and_biases()]
    assert str(tmp_path / "hf/token") in only(iter(found), "a token is configured").text
    assert str(tmp_path / "netrc") in only(iter(found), "a key is configured").text
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    found += [*outside.hub(), *outside.weights_and_biases()]
    assert not [one for one in found if any(secret in f"{one.text}{one.remedy}" for secret in SECRETS.values())]


def test_a_broken_netrc_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "netrc").write_bytes(b"machine \xff\n")
    assert only(outside.weights_and_biases(), "no key").status == "note"


def test_a_launcher_and_its_config_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert [one.status for one in outside.launcher()] == ["ok", "ok"]
    monkeypatch.setenv("WORLD_SIZE", "8")
    config = tmp_path / "hf/accelerate/default_config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("num_processes: 2\n")
    assert "WORLD_SIZE=8" in only(outside.launcher(), "one of several processes").text
    assert str(config) in only(outside.launcher(), "is set up by").text


# Isolation


def probes(tier: Tier, *failed: str) -> tuple[Probe, ...]:
    if not failed:
        return (Probe(tier, "reads nothing", True, "held"),)
    return tuple(Probe(tier, name, False, "got out", "close it") for name in failed)


def test_a_tier_whose_probes_hold_is_ok_and_the_first_is_the_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "probed", lambda tier: probes(tier))
    found = list(isolation.check())
    assert [one.status for one in found] == ["ok"] * 3
    assert "auto takes bubblewrap" in found[-1].text


def test_of_a_tier_that_does_not_hold_each_failed_probe_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"bubblewrap": ("reads a file", "connects")}
    monkeypatch.setattr(selftest, "probed", lambda tier: probes(tier, *failing.get(tier, ())))
    found = list(isolation.check())
    assert only(iter(found), "bubblewrap: not usable").status == "note"
    assert only(iter(found), "bubblewrap: reads a file: got out").remedy == "close it"
    assert only(iter(found), "bubblewrap: connects").status == "note"
    assert "auto takes landlock" in found[-1].text


def test_where_no_tier_holds_the_doctor_says_what_a_run_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "probed", lambda tier: probes(tier, "forks"))
    found = list(isolation.check())
    assert "exit code 77" in found[-1].text
    assert {one.status for one in found} == {"note"}


@pytest.mark.parametrize("holds", [True, False])
def test_a_recipe_that_runs_code_needs_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool) -> None:
    monkeypatch.setattr(selftest, "probed", lambda tier: probes(tier, *([] if holds else ["forks"])))
    recipe = scripted_recipe(tmp_path, score={"scorers": ["code"]})
    found = of_recipe(recipe, monkeypatch)
    if holds:
        assert "bubblewrap" in only(iter(found), "sandbox").text
    else:
        refused = only(iter(found), "No sandbox passed")
        assert refused.status == "problem"
        assert refused.exit_code == 77


# Recipes


def of_recipe(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Finding]:
    """The findings but for the planning, which takes a second each."""
    monkeypatch.setattr(recipes, "_planned", lambda recipe: ok("recipe", "planned"))
    return list(recipes.check(str(recipe)))


def test_a_recipe_that_cannot_be_read_has_the_exit_code_of_its_mistake(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, sample={"temprature": 1})
    assert [(one.status, one.exit_code) for one in recipes.check(str(recipe))] == [("problem", 2)]


def test_a_recipe_is_planned_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = scripted_recipe(tmp_path)
    assert "train: 12 prompts" in only(recipes.check(str(recipe)), "selftrain plan accepts it").text
    (tmp_path / "train.jsonl").write_text('{"prompt": "what?"}\n')
    found = only(recipes.check(str(recipe)), "train.jsonl, line 1")
    assert (found.status, found.exit_code) == ("problem", 65)
    monkeypatch.setattr(recipes, "PLAN_SECONDS", 0.01)
    assert only(recipes.check(str(recipe)), "planning takes longer").status == "note"


MODEL = {"sample": {"engine": "transformers", "params": {}}}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("package:no_such_package/model.gguf", "problem", "no_such_package is not installed"),
        ("package:json/model.gguf", "problem", "holds no file"),
        ("./nowhere", "problem", "there is no"),
        ("someone/some-model", "note", "the run fetches it"),
    ],
)
def test_a_model_that_is_not_here_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, status: str, words: str
) -> None:
    recipe = scripted_recipe(tmp_path, **MODEL, model={"path": path})
    assert only(iter(of_recipe(recipe, monkeypatch)), words).status == status


def test_a_model_in_the_hubs_cache_is_found_if_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", **MODEL, model={"path": "someone/model"})
    folder = tmp_path / "hf/hub/models--someone--model"
    snapshot = folder / "snapshots" / ("c" * 40)
    (folder / "refs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (folder / "refs/main").write_text("c" * 40)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model-1.safetensors").write_bytes(b"x" * 2**20)
    assert "in the hub's cache, 1 MiB" in only(iter(of_recipe(recipe, monkeypatch)), "model: someone/model").text
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert only(iter(of_recipe(recipe, monkeypatch)), "model: someone/model").status == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = only(iter(of_recipe(recipe, monkeypatch)), "model: someone/model")
    assert (found.status, found.exit_code) == ("problem", 69)


def test_a_local_model_needs_its_config_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    recipe = scripted_recipe(tmp_path / "recipe", **MODEL, model={"path": str(folder)})
    assert only(iter(of_recipe(recipe, monkeypatch)), "has no config.json").status == "problem"
    (folder / "config.json").write_text("{}")
    assert only(iter(of_recipe(recipe, monkeypatch)), "has no weights").exit_code == 2
    (folder / "model.safetensors").write_bytes(b"")
    assert only(iter(of_recipe(recipe, monkeypatch)), f"model: {folder}").status == "ok"


def test_what_only_this_recipe_needs_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = scripted_recipe(
        tmp_path,
        **MODEL,
        model={"path": sys.prefix, "quantization": "4bit", "attn_implementation": "flash_attention_2"},
    )
    monkeypatch.setattr(recipes, "GPU_DEVICES", ("/dev/not-there",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = of_recipe(recipe, monkeypatch)
    assert only(iter(found), "bitsandbytes").remedy == "pip install bitsandbytes"
    assert only(iter(found), "flash-attn").status == "problem"
    assert only(iter(found), "needs a GPU").exit_code == 69


def test_the_requirements_of_our_tests_are_none_of_the_users() -> None:
    _, extras = libraries.requirements()
    assert "dev" not in extras
    assert all(isinstance(one, Requirement) for needed in extras.values() for one in needed)


def test_a_model_and_an_adapter_beside_the_recipe_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of a recipe are relative to its folder, wherever the command runs."""
    recipe = scripted_recipe(tmp_path, **MODEL, model={"path": "./mine", "adapter": "mine"})
    for name in ("config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("{}")
    found = of_recipe(recipe, monkeypatch)
    assert only(iter(found), "model: ").status == "ok"
    assert only(iter(found), "adapter: ").status == "ok"
