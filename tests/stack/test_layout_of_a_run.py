"""Deciding a run: ports, workers, identities, the lock, and the settings check."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from governance.charter import charter_load
from inference.messages import manifest_digest, release_manifest
from stack.duplicates import duplicates_find
from stack.identities import identities_check
from stack.layout import ROOT, Layout, WorkerPlan, layout_make, port_variable, ports_decide, workers_plan
from stack.screen import duration_text
from stack.upfile import AlreadyRunningError, UpFile, state_lock, up_read

CHARTER = ROOT / "charters" / "deepseek.yaml"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return layout_make(state_dir=tmp_path / "var", model_dir=model, charter=CHARTER, env={})


def test_a_worker_for_each_pool_of_the_charter() -> None:
    plans = workers_plan(charter_load(CHARTER))
    assert [plan.name for plan in plans] == ["worker-huawei", "worker-tencent", "worker-alibaba"]
    assert {plan.release for plan in plans} == {"tokenworks-nano"}


def test_ports_are_remembered_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports_decide(["gateway", "worker-a.b"], remembered=file, env={})
    assert ports_decide(["gateway", "worker-a.b"], remembered=file, env={}) == first
    assert port_variable("worker-a.b") == "TOKENWORKS_WORKER_A_B_PORT"
    free = ports_decide(["x"], remembered=tmp_path / "other.json", env={})["x"]
    named = ports_decide(["gateway"], remembered=file, env={"TOKENWORKS_GATEWAY_PORT": str(free)})
    assert named == {"gateway": free}


def test_a_taken_port_is_replaced_unless_it_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        file.write_text(json.dumps({"gateway": taken}))
        assert ports_decide(["gateway"], remembered=file, env={})["gateway"] != taken
        with pytest.raises(ValueError, match=f"TOKENWORKS_GATEWAY_PORT={taken}: another program"):
            ports_decide(["gateway"], remembered=file, env={"TOKENWORKS_GATEWAY_PORT": str(taken)})


def identity_store(layout: Layout, worker: WorkerPlan, **changes: str) -> None:
    facts = {
        "endpoint": layout.url(worker.name),
        "control_url": layout.url("control"),
        "release_digest": manifest_digest(release_manifest(layout.model_dir)),
    }
    folder = layout.worker_dir(worker.name)
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps({**facts, **changes}))


def test_workers_that_moved_or_changed_start_with_a_new_identity(layout: Layout) -> None:
    same, moved, other_release = layout.workers
    identity_store(layout, same)
    identity_store(layout, moved, endpoint="http://127.0.0.1:1")
    identity_store(layout, other_release, release_digest="0" * 64)
    assert identities_check(layout) == {moved.name, other_release.name}
    assert layout.worker_dir(same.name).exists()
    for worker in (moved, other_release):
        assert not layout.worker_dir(worker.name).exists()
        assert (
            layout.worker_dir(worker.name).with_name(f"{worker.name}.retired-1") / "identity.json"
        ).exists()
    assert identities_check(layout) == {moved.name, other_release.name}


def test_secrets_are_made_once_and_private(layout: Layout) -> None:
    again = layout_make(
        state_dir=layout.state_dir, model_dir=layout.model_dir, charter=layout.charter, env={}
    )
    assert again.secret_key == layout.secret_key != layout.dispatch_secret
    for path in (layout.state_dir / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_one_supervisor_holds_a_state_folder(tmp_path: Path) -> None:
    with state_lock(tmp_path), pytest.raises(AlreadyRunningError, match="already up"), state_lock(tmp_path):
        pass
    with state_lock(tmp_path):
        pass


def test_the_up_file_is_private_and_goes_away(tmp_path: Path) -> None:
    up_file = UpFile(tmp_path)
    up_file.set(state="starting")
    up_file.set(state="ready", api_key="k")
    assert up_read(tmp_path) == {"state": "ready", "api_key": "k"}
    assert stat.S_IMODE(up_file.path.stat().st_mode) == 0o600
    up_file.remove()
    assert up_read(tmp_path) == {}


def test_a_setting_assigned_twice_is_found(tmp_path: Path) -> None:
    settings = tmp_path / "settings.py"
    settings.write_text(
        'A = 1\nB: int = 2\nD = {}\nD["x"] = 1\nD["y"] = 2\nif A:\n    B = 3\n(A, C) = 1, 2\n'
    )
    assert duplicates_find(settings) == ["A", "B"]


@pytest.mark.parametrize(("seconds", "text"), [(8.9, "8s"), (188, "3m08s"), (7500, "2h05m")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
