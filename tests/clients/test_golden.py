"""The golden files are what their script writes today."""

import subprocess
import sys

from support.orderflow import ROOT


def test_the_golden_files_are_what_their_script_writes():
    script = ROOT / "tests/fixtures/golden/make_golden.py"
    result = subprocess.run(
        [sys.executable, script, "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout
