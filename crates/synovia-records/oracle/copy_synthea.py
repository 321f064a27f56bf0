"""Copies the Synthea bundles with new ids, as bundles and as bulk-export NDJSON, for `synovia bench records`.

  python copy_synthea.py ../shared/data/synthea OUT COPIES

Every UUID of copy k has its first four digits changed by k, so that patients, encounters and claims are others.
"""
import json, re, sys
from pathlib import Path

source, out, copies = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
uuid = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
(out / "bundles").mkdir(parents=True)
(out / "ndjson").mkdir()
bundles = [(f.stem, f.read_bytes()) for f in sorted(source.glob("*.json"))]
ids = {i for _, raw in bundles for i in uuid.findall(raw)}
files = {}
for k in range(copies):
    new = {i: b"%04x" % (int(i[:4], 16) ^ (k * 1283 & 0xFFFF)) + i[4:] for i in ids}
    for stem, raw in bundles:
        text = uuid.sub(lambda m: new[m.group()], raw)
        name = new.get(stem.encode(), stem.encode()).decode()
        (out / "bundles" / f"{name}-{k:02}.json").write_bytes(text)
        for entry in json.loads(text)["entry"]:
            resource = entry["resource"]
            kind = resource["resourceType"]
            if kind not in files:
                files[kind] = open(out / "ndjson" / f"{kind}.ndjson", "wb")
            files[kind].write(json.dumps(resource, separators=(",", ":")).encode() + b"\n")
