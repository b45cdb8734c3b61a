"""What the data plane must never load."""

from __future__ import annotations

import subprocess
import sys


def test_gateway_loads_no_django_and_no_torch() -> None:
    code = (
        "import sys, gateway.app, gateway.run; "
        "bad = {name.partition('.')[0] for name in sys.modules} & {'django', 'torch', 'ninja', 'psycopg'}; "
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_missing_setting_is_named() -> None:
    environ = "{'TOKENWORKS_GATEWAY_ID': 'gw_' + '0' * 26}"
    code = f"from gateway.settings import settings_from; settings_from({environ})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "REDIS_URL is not set" in result.stderr
