"""`psanet attention`, as a user calls it, and its page in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["attention", *map(str, arguments)])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype("uint8")).save(path)
    return path


def test_points_and_grid(evaluated_runs, image, tmp_path):
    for name, arguments in (("points", ["--point", "3,4", "--point", "50,30"]), ("grid", ["--grid"])):
        out = tmp_path / name
        result = run("--image", image, "--weights", evaluated_runs / "psanet", "--out", out, *arguments)
        assert result.exit_code == 0, result.output
        assert f"heat maps: {out / 'photo_attention.png'}" in result.output
        assert (out / "photo_attention.html").is_file()
    heights = [Image.open(tmp_path / name / "photo_attention.png").height for name in ("points", "grid")]
    assert heights[1] > 5 * heights[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", "3"], "must look like 310,220"),
        (["--point", "a,b"], "must look like 310,220"),
        (["--point", "60,3"], "lies outside of the image"),
        ([], "give either points"),
        (["--point", "3,3", "--grid"], "give either points"),
    ],
)
def test_bad_points(evaluated_runs, image, tmp_path, arguments, message):
    result = run("--image", image, "--weights", evaluated_runs / "psanet", "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_network_without_attention(evaluated_runs, image, tmp_path):
    result = run("--image", image, "--weights", evaluated_runs / "fcn", "--out", tmp_path / "out", "--grid")
    assert "has no attention" in str(result.exception)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_hovering_changes_the_maps_in_a_browser(evaluated_runs, image, tmp_path):
    result = run("--image", image, "--weights", evaluated_runs / "psanet", "--out", tmp_path, "--grid")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "photo_attention.html").read_text()
    # After the page is ready: hover two places, and write into the page what the canvases show then.
    probe = """<script>
    const waiting = setInterval(() => {
      const element = document.querySelector(".attention[data-ready=true]");
      if (!element) return;
      clearInterval(waiting);
      const image = element.querySelector("[data-role=image]"), box = image.getBoundingClientRect();
      const results = [];
      for (const [x, y] of [[0.1, 0.1], [0.9, 0.8]]) {
        image.dispatchEvent(new PointerEvent("pointermove",
          {clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
        const sums = {};
        for (const canvas of element.querySelectorAll("canvas")) {
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          sums[canvas.dataset.role] = pixels.reduce((sum, value, index) => (sum * 31 + value * (index % 97)) % 1e9, 7);
        }
        results.push({sums, peak: element.querySelector("[data-peak=collect]").textContent});
      }
      const output = document.createElement("pre");
      output.id = "probe"; output.textContent = JSON.stringify(results);
      document.body.append(output);
    }, 20);
    </script></body>"""
    (tmp_path / "probe.html").write_text(page.replace("</body>", probe))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{tmp_path / 'probe.html'}"]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    first, second = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', document).group(1))
    assert first["peak"].startswith("largest weight ")
    for role in ("image", "collect", "distribute"):
        assert first["sums"][role] != second["sums"][role]
