"""The program, and weights between its files and Flower's arrays."""

import json
import subprocess

import numpy
from flwr.app import Array, ArrayRecord
from safetensors import safe_open
from safetensors.numpy import save_file

# The one key of the files' metadata: a line of JSON.
KEY = "synovia"
# What the names of the moving average's numbers begin with.
AVERAGE = "average/"


class ProgramError(RuntimeError):
    """What the program said when it did not succeed."""


def run(binary, *arguments):
    """Runs it; what it prints."""
    done = subprocess.run([binary, *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ProgramError(done.stderr.strip() or f"{binary} ended with {done.returncode}")
    return done.stdout.strip()


def read(path):
    """A file's numbers as one long row (`model`), with those of the moving average where it has one (`average`); the names and
    shapes that the row is made of; and the file's line of JSON.

    Flower carries each array by itself: a hundred small ones would take a hundred requests.
    """
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        header = json.loads(file.metadata()[KEY])
    layout = [[name, list(values.shape)] for name, values in tensors.items() if not name.startswith(AVERAGE)]
    rows = {"model": [tensors[name] for name, _ in layout]}
    if any(name.startswith(AVERAGE) for name in tensors):
        rows["average"] = [tensors[AVERAGE + name] for name, _ in layout if AVERAGE + name in tensors]
    arrays = {name: Array(numpy.concatenate([part.ravel() for part in row])) for name, row in rows.items()}
    return ArrayRecord(arrays), layout, header


def write(path, arrays, layout, header):
    """What `read` gave, as a file."""
    tensors = {}
    for row, prefix in [("model", ""), ("average", AVERAGE)]:
        if row not in arrays:
            continue
        values, at = arrays[row].numpy().astype(numpy.float32), 0
        for name, shape in layout:
            count = int(numpy.prod(shape))
            tensors[prefix + name] = values[at : at + count].reshape(shape).copy()
            at += count
        if at != values.size:
            raise ProgramError(f"{values.size} numbers where the model has {at}")
    save_file(tensors, path, metadata={KEY: json.dumps(header)})
