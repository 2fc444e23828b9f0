"""Shell completion: each shell gets a script, and the program answers what the script asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stream_app.cli import COMMANDS
from tests.cli.conftest import Cli


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_each_shell_gets_its_script(lonely: Cli, shell: str) -> None:
    text = lonely.ok("completion", shell)
    assert "sliceflow" in text
    assert f"_SLICEFLOW_COMPLETE={shell}_complete" in text


def test_an_unknown_shell_is_refused(lonely: Cli) -> None:
    assert lonely("completion", "cmd").exit_code == 2


def test_the_program_completes_its_commands() -> None:
    # With the prefix that a shell sends: the words so far, and the place of the one to complete.
    environ = {**os.environ, "_SLICEFLOW_COMPLETE": "zsh_complete", "COMP_WORDS": "sliceflow re", "COMP_CWORD": "1"}
    program = "from stream_app.cli import main; main(prog_name='sliceflow')"
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answered = done.stdout.splitlines()
    assert [name for name in answered if name in COMMANDS] == [name for name in COMMANDS if name.startswith("re")]
