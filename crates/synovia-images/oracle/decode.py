"""What pydicom decodes of each file of the given folders: the reference of tests/oracle.rs.

Each file: syntax, photometric interpretation, bits, and of the frames (colour as RGB, palettes as indices) either the CRC-32
of all values as little-endian f64, where the coding is lossless, or every n-th value, where it is lossy; else the error's kind.

  pip install pydicom==3.0.2 pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pylibjpeg-rle numpy
  python decode.py NAME=FOLDER... > pydicom.json
"""
import json
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom

warnings.simplefilter("ignore")
LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"}


def reference(path):
    out = {}
    try:
        ds = pydicom.dcmread(path)
        out["syntax"] = str(ds.file_meta.get("TransferSyntaxUID", ""))
        out["photometric"] = str(ds.get("PhotometricInterpretation", ""))
        out["bits"] = [int(ds.get("BitsAllocated") or 0), int(ds.get("BitsStored") or 0)]
        # Else another plugin that happens to be installed, which rounds otherwise.
        ds.pixel_array_options(decoding_plugin="pylibjpeg")
        a = ds.pixel_array
        out["shape"] = [int(x) for x in a.shape]
        colour = out["photometric"].startswith("YBR")
        a = a.ravel().astype("<f8")
        if out["syntax"] in LOSSY or colour:
            step = max(1, a.size // 1024)
            out["step"], out["values"] = step, [int(x) for x in a[::step]]
        else:
            out["crc"] = zlib.crc32(a.tobytes())
    except Exception as e:
        out["error"] = type(e).__name__
    return out


if __name__ == "__main__":
    files = {}
    for argument in sys.argv[1:]:
        name, folder = argument.split("=")
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix.lower() in ("", ".dcm") and path.name != "DICOMDIR":
                files[f"{name}/{path.relative_to(folder)}"] = reference(path)
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in files.items())
    print("{\n" + lines + "\n}")
