"""What samples/ gives to schedulers: the commands run as they stand, and exit codes are dealt with as is said there."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from moe_bulk import cli
from tests.acceptance.command import write_devices
from tests.fake_service import sandbox_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
SERVICE = SAMPLES / "systemd" / "moe-bulk.service"
TIMER = SAMPLES / "systemd" / "moe-bulk.timer"
RESUMABLE = {3, 129, 130, 143}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox while the test runs."""
    with sandbox_in_a_thread() as running:
        yield running


@dataclass
class Machine:
    """A folder in which a sample's command runs, with the sandbox as its destination."""

    folder: Path
    sandbox: Sandbox
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def deliver(self, arguments: Sequence[str], key: str | None = None) -> int:
        """Run a command in this process, and return its exit code; the key comes from the file that it names."""
        (self.folder / "api-key").write_text(f"{key or self.sandbox.api_key}\n", encoding="utf-8")
        self.monkeypatch.delenv("MOENGAGE_API_KEY", raising=False)
        self.monkeypatch.delenv("MOENGAGE_DATA_CENTER", raising=False)
        self.monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", self.sandbox.workspace_id)
        self.monkeypatch.setenv("MOENGAGE_BASE_URL", self.sandbox.url)
        self.monkeypatch.chdir(self.folder)
        code = cli.run(arguments)
        said = self.capsys.readouterr()
        assert self.sandbox.api_key not in said.out + said.err + " ".join(arguments)
        return code


@pytest.fixture
def machine(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Machine:
    """Where the scheduler runs."""
    return Machine(tmp_path, sandbox, monkeypatch, capsys)


def goes_on(arguments: Sequence[str], machine: Machine) -> None:
    """3 with a wrong key, after which the same command goes on and ends with 0."""
    write_devices(machine.folder / "devices.csv", 20)
    assert 3 == machine.deliver(arguments, key="wrong")
    assert 0 == machine.deliver(arguments)
    summary = json.loads((machine.folder / "devices.csv.run" / "summary.json").read_text())
    assert (20, 2) == (len(machine.sandbox.devices), summary["sessions"])


def has_dead_letters(arguments: Sequence[str], machine: Machine) -> None:
    """1 where a row is no device."""
    rows = "customer_id,device_id,platform,push_id\nguest,d,web,t\n"
    (machine.folder / "devices.csv").write_text(rows, encoding="utf-8")
    assert 1 == machine.deliver(arguments)
    assert 1 == len((machine.folder / "devices.csv.run" / "dead-letter.ndjson").read_text().splitlines())


NIGHTS = pytest.mark.parametrize("night", [goes_on, has_dead_letters])
Night = Callable[[Sequence[str], Machine], None]


# --- systemd ---------------------------------------------------------------------------------------------------------


def unit(path: Path) -> configparser.ConfigParser:
    """A unit file; none of ours says a thing twice but Environment."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="], comment_prefixes=["#"])
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@NIGHTS
def test_the_service_s_command_runs(night: Night, tmp_path: Path, machine: Machine) -> None:
    """With its specifiers filled in as systemd does, by the account of the file that it is handed."""
    command = unit(SERVICE)["Service"]["ExecStart"].replace("%S/moe-bulk", str(tmp_path)).replace("%d", str(tmp_path))
    program, *arguments = shlex.split(command.replace("/srv/export", str(tmp_path)))
    assert "moe-bulk" == Path(program).name
    night(arguments, machine)


def test_the_service_starts_again_where_that_helps() -> None:
    """What is resumable is started again, what would fail again is not, and whom another upload is ahead of is well."""
    service = unit(SERVICE)["Service"]
    prevented = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert ("on-failure", {1, 2}, "4") == (service["Restart"], prevented, service["SuccessExitStatus"])
    assert not prevented & RESUMABLE
    assert 8 < int(service["TimeoutStopSec"])


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """Its own judgement of both units; the program and the files that they name are stand-ins."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd on this machine")
    (tmp_path / "env").touch()
    text = SERVICE.read_text(encoding="utf-8").replace("/usr/local/bin/moe-bulk", sys.executable)
    (tmp_path / SERVICE.name).write_text(text.replace("/etc/moe-bulk/env", str(tmp_path / "env")), encoding="utf-8")
    shutil.copy(TIMER, tmp_path)
    units = [str(tmp_path / each.name) for each in (SERVICE, TIMER)]
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=18
    )
    complaints = [line for line in ended.stderr.splitlines() if SERVICE.stem in line]
    assert ([], 0) == (complaints, ended.returncode)
    when = ["systemd-analyze", "calendar", unit(TIMER)["Timer"]["OnCalendar"]]
    assert 0 == subprocess.run(when, capture_output=True, check=False, timeout=18).returncode


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def cron_job() -> dict[str, Any]:
    """The manifest, and in it one container."""
    (manifest,) = yaml.safe_load_all((SAMPLES / "kubernetes" / "cronjob.yaml").read_text(encoding="utf-8"))
    assert ("batch/v1", "CronJob") == (manifest["apiVersion"], manifest["kind"])
    job: dict[str, Any] = manifest["spec"]["jobTemplate"]["spec"]
    return job


@NIGHTS
def test_the_cron_job_s_command_runs(night: Night, tmp_path: Path, machine: Machine) -> None:
    """Its arguments behind the image's entry point, with its volumes in a folder here."""
    (container,) = cron_job()["template"]["spec"]["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    arguments = [
        each.replace(mounts["key"], str(tmp_path)).replace(mounts["data"], str(tmp_path)) for each in container["args"]
    ]
    night(arguments, machine)


def test_the_cron_job_starts_again_where_that_helps() -> None:
    """The codes that end the job are those that a new pod would end with, too; each other one is tried again."""
    job = cron_job()
    (codes,) = (rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob")
    assert ("In", {1, 2, 4}) == (codes["operator"], set(codes["values"]))
    assert not set(codes["values"]) & RESUMABLE
    pod = job["template"]["spec"]
    assert "Never" == pod["restartPolicy"]  # podFailurePolicy asks for it
    assert 8 < pod["terminationGracePeriodSeconds"]


def test_the_key_is_a_secret_s_file() -> None:
    """It stands in no argument and no variable; whoever runs the container is not root, and may read that file."""
    pod = cron_job()["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    path = Path(container["args"][container["args"].index("--api-key-file") + 1])
    assert {"secretName": "moengage", "defaultMode": 0o440} == mounts[str(path.parent)]["secret"]
    assert "MOENGAGE_API_KEY" not in {each["name"] for each in container["env"]}
    (state,) = (each["value"] for each in container["env"] if each["name"] == "XDG_STATE_HOME")
    assert "persistentVolumeClaim" in mounts["/" + state.split("/")[1]]
    assert (True, pod["securityContext"]["runAsGroup"]) == (
        pod["securityContext"]["runAsNonRoot"],
        pod["securityContext"]["fsGroup"],
    )


def test_the_image_holds_the_program() -> None:
    """What is copied is there, its shell lines are shell, its entry point is our program, and no key is in it.

    It is not built here: that needs Docker's daemon and a registry.
    """
    text = (SAMPLES / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT"} == {name for name, _ in lines}
    for name, rest in lines:
        if name == "COPY" and not rest.startswith("--from"):
            assert [] == [each for each in rest.split()[:-1] if not (ROOT / each).exists()]
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
    assert ["moe-bulk"] == json.loads(dict(lines)["ENTRYPOINT"])
    assert 'moe-bulk = "moe_bulk.__main__:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pod = cron_job()["template"]["spec"]["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == dict(lines)["USER"]
    assert "MOENGAGE" not in text
