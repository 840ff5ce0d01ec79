"""Run the examples again, and put what they print and draw on their pages.

    python docs/examples/.update.py [NAME ...]

``tests/docs/test_examples_pipelines.py`` says when that is due.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
NAMES = ("calcium_imaging", "low_light", "without_datajoint", "distributed", "elements", "at_scale")

for name in sys.argv[1:] or NAMES:
    with tempfile.TemporaryDirectory() as folder:
        pictures = [] if name == "without_datajoint" else ["--output", folder]
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *pictures]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        (HERE / "output" / f"{name}.txt").write_text(printed, encoding="utf-8")
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, HERE / "img" / picture.name)
