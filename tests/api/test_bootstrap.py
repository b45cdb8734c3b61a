"""From an empty database to a consortium, and again without harm."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from core import redis_keys
from core.secrets import digest_secret
from directory.redis_client import redis_client
from directory.snapshots import snapshot_read
from governance.models import Charter
from ledger.selectors import balances_total_nano, tenant_balance
from partners.models import Offer, Partner, Pool, Worker
from releases.models import Release
from tenants.actor import actor_of_secret
from tenants.models import Project, Tenant, User
from tenants.scope import system_scope
from tenants.sign_in import user_authenticate
from tests.api.world import CHARTER, model_make

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "system", "owner"]),
    pytest.mark.usefixtures("fresh_redis_url", "quiet_logs"),
]


@pytest.fixture
def quiet_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test process's logging as it is."""
    monkeypatch.setattr("api.management.commands.bootstrap.configure_logs", lambda **_options: None)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A small release."""
    return model_make(tmp_path / "model")


def _run(model_dir: Path, *options: str, charter: Path = CHARTER) -> dict[str, Any]:
    out = io.StringIO()
    call_command(
        "bootstrap", *options, "--json", f"--charter={charter}", f"--model-dir={model_dir}", stdout=out
    )
    done: dict[str, Any] = json.loads(out.getvalue())
    return done


def test_everything_printed_works(model_dir: Path) -> None:
    done = _run(model_dir, "--migrate")
    roles = {}
    for account in done["accounts"]:
        user = user_authenticate(email=account["email"], password=account["password"], address="::1")
        roles[account["role"]] = user.is_foundation_admin
    assert roles == {"tenant owner": False, "foundation admin": True}
    assert actor_of_secret(done["api_key"]).tenant_id == done["tenant_id"]
    assert [pool["partner"] for pool in done["pools"]] == ["huawei", "tencent", "alibaba"]
    assert all(pool["enrolment_token"].startswith("tw-enrol-") for pool in done["pools"])
    with system_scope():
        assert tenant_balance(tenant_id=done["tenant_id"]).balance_nano == 5_000_000_000
        assert balances_total_nano() == 0
        assert Project.objects.get().id == done["project_id"]


def test_gateways_know_key_money_and_rules(model_dir: Path) -> None:
    done = _run(model_dir)
    client = redis_client()
    assert client.exists(redis_keys.EPOCH, redis_keys.key_record(digest_secret(done["api_key"]))) == 2
    assert client.hget(redis_keys.account(done["tenant_id"]), "credit") == b"5000000000"
    snapshot = snapshot_read(client.get(redis_keys.SNAPSHOT))
    assert snapshot is not None
    assert [(model.name, model.release_digest) for model in snapshot.models] == [
        ("tokenworks-nano", done["release_digest"])
    ]


def test_running_again_adds_nothing_but_fresh_secrets(model_dir: Path) -> None:
    first = _run(model_dir)
    second = _run(model_dir)
    assert {key: second[key] for key in ("tenant_id", "project_id", "release_digest")} == {
        key: first[key] for key in ("tenant_id", "project_id", "release_digest")
    }
    assert second["api_key"] != first["api_key"]
    with pytest.raises(Exception, match="Incorrect API key"):
        actor_of_secret(first["api_key"])
    assert redis_client().exists(redis_keys.key_record(digest_secret(first["api_key"]))) == 0
    with pytest.raises(Exception, match="wrong"):
        user_authenticate(
            email=first["accounts"][0]["email"], password=first["accounts"][0]["password"], address="::1"
        )
    with system_scope():
        counts = [model.objects.count() for model in (Charter, Partner, Pool, Offer, Release, Tenant, User)]
        assert counts == [1, 3, 3, 3, 1, 1, 2]
        assert tenant_balance(tenant_id=first["tenant_id"]).balance_nano == 5_000_000_000


def test_pools_with_a_worker_of_this_release_get_no_token_unless_asked(model_dir: Path) -> None:
    done = _run(model_dir)
    with system_scope():
        for number, pool in enumerate(done["pools"][:2]):
            Worker.objects.create(
                pool_id=pool["pool_id"],
                name="w",
                endpoint="http://h:1",
                public_key=str(number),
                release_digest=done["release_digest"] if number == 0 else "older",
                release_slug="tokenworks-nano",
                capacity={},
                max_running=1,
            )
    has_token = [pool["enrolment_token"] is not None for pool in _run(model_dir)["pools"]]
    assert has_token == [False, True, True]
    assert all(pool["enrolment_token"] for pool in _run(model_dir, "--fresh-tokens")["pools"])


def test_a_changed_charter_changes_prices_from_now_on(model_dir: Path, tmp_path: Path) -> None:
    _run(model_dir)
    changed = tmp_path / "changed.yaml"
    changed.write_text(CHARTER.read_text().replace('input: "0.10"', 'input: "0.09"'))
    _run(model_dir, charter=changed)
    with system_scope():
        assert (Charter.objects.count(), Offer.objects.count()) == (2, 4)


def test_what_cannot_be_used_is_told_and_changes_nothing(model_dir: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(CHARTER.read_text().replace("levy_ppm", "levy"))
    for charter, folder in ((bad, model_dir), (tmp_path / "none.yaml", model_dir), (CHARTER, tmp_path)):
        with pytest.raises(CommandError):
            _run(folder, charter=charter)
    two = tmp_path / "two.yaml"
    two.write_text(CHARTER.read_text().replace("release: tokenworks-nano", "release: other", 1))
    with pytest.raises(CommandError, match="other"):
        _run(model_dir, charter=two)
    with system_scope():
        assert not Tenant.objects.exists()
        assert not Charter.objects.exists()


def test_without_json_it_speaks_in_words(model_dir: Path) -> None:
    out = io.StringIO()
    call_command("bootstrap", f"--model-dir={model_dir}", stdout=out)
    assert "foundation admin: admin@foundation.example" in out.getvalue()
    assert "pool huawei-guizhou-910c of huawei: tw-enrol-" in out.getvalue()
