"""Requests that schemathesis makes of the server's own OpenAPI document: cases.py URL EXAMPLES MODEL

With any words for a model's name, and with the name of one that is there. No answer may be a failure of the server, of a status or
content type that the document does not have, or of another shape than its schema. The last line is the number of requests.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

url, examples, model = sys.argv[1:]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
total = 0
with tempfile.TemporaryDirectory() as folder:
    named = Path(folder) / "named.toml"
    named.write_text(f'[parameters]\n"path.model" = "{model}"\n"path.version" = "1"\n')
    # What is unloaded answers no more, and that it does not is an answer 503.
    for configuration, more in [("/dev/null", []), (str(named), ["--exclude-path-regex", "/unload$"])]:
        asked = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", configuration, "run", f"http://{url}/openapi.json"]
        asked += ["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", examples, "--seed", "1", "--continue-on-failure"]
        asked += ["--no-color", "--generation-database", "none", "--warnings", "off", *more]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True)
        counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        if done.returncode != 0 or counts is None or counts[1] != counts[2]:
            sys.exit(done.stdout + done.stderr)
        total += int(counts[2])
print(total)
