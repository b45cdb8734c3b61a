"""Why a worker cannot serve, with the exit status of the process (as in sysexits.h)::

StartupError             EX_SOFTWARE 70
├── UnreachableError     EX_TEMPFAIL 75   the control plane did not answer: start again later
├── RefusedError         EX_NOPERM   77   it said no: a new token or another release is needed
└── ConfigurationError   EX_CONFIG   78   this machine's files or options must be changed
"""

from __future__ import annotations

import os


class StartupError(Exception):
    """The worker stops, telling the operator why."""

    exit_status = os.EX_SOFTWARE


class UnreachableError(StartupError):
    """No answer within the time allowed."""

    exit_status = os.EX_TEMPFAIL


class RefusedError(StartupError):
    """The control plane refused, and would refuse again."""

    exit_status = os.EX_NOPERM


class ConfigurationError(StartupError):
    """Starting again without a change is useless."""

    exit_status = os.EX_CONFIG
