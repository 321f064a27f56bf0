"""The program, and weights between its files and Flower's arrays."""

import json
import subprocess

import numpy
from flwr.app import Array, ArrayRecord
from safetensors import safe_open
from safetensors.numpy import save_file

# The one key of the files' metadata: a line of JSON.
KEY = "synovia"


class ProgramError(RuntimeError):
    """What the program said when it did not succeed."""


def run(binary, *arguments):
    """Runs it; what it prints."""
    done = subprocess.run([binary, *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ProgramError(done.stderr.strip() or f"{binary} ended with {done.returncode}")
    return done.stdout.strip()


def read(path):
    """A file's arrays and its line of JSON."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: numpy.asarray(file.get_tensor(name)) for name in sorted(file.keys())}
        header = json.loads(file.metadata()[KEY])
    return ArrayRecord({name: Array(values) for name, values in arrays.items()}), header


def write(path, arrays, header):
    """Arrays and a line of JSON as a file."""
    tensors = {name: numpy.ascontiguousarray(array.numpy(), dtype=numpy.float32) for name, array in arrays.items()}
    save_file(tensors, path, metadata={KEY: json.dumps(header)})
