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
ROWS = [("model", ""), ("average", AVERAGE)]
# What the names of the features' statistics hold, and where a layout has them.
STATISTICS, CONSTANTS = ".standardize.", "constants"


class ProgramError(RuntimeError):
    """What the program said when it did not succeed."""


def run(binary, *arguments):
    """Runs it; what it prints."""
    done = subprocess.run([binary, *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ProgramError(done.stderr.strip() or f"{binary} ended with {done.returncode}")
    return done.stdout.strip()


def tensors(path):
    """A file's numbers by name, and its line of JSON."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, json.loads(file.metadata()[KEY])


def read(path, apart=False):
    """A file's numbers as one long row (`model`), with those of the moving average where it has one (`average`); for each row the
    names and shapes that it is made of; and the file's line of JSON.

    Flower carries each array by itself: a hundred small ones would take a hundred requests. With `apart` the statistics of the features,
    which nobody trains and which noise must not reach, are in the layout and not in the row.
    """
    numbers, header = tensors(path)
    layout, arrays = {}, {}
    if apart:
        layout[CONSTANTS] = [[name, list(t.shape), t.ravel().tolist()] for name, t in numbers.items() if STATISTICS in name]
        numbers = {name: tensor for name, tensor in numbers.items() if STATISTICS not in name}
    for row, prefix in ROWS:
        names = [name for name in numbers if name.startswith(AVERAGE) == (prefix == AVERAGE)]
        if names:
            layout[row] = [[name.removeprefix(prefix), list(numbers[name].shape)] for name in names]
            arrays[row] = Array(numpy.concatenate([numbers[name].ravel() for name in names]))
    return ArrayRecord(arrays), layout, header


def write(path, arrays, layout, header):
    """What `read` gave, as a file. An average whose layout nobody says has that of the model."""
    numbers = {name: numpy.array(values, numpy.float32).reshape(shape) for name, shape, values in layout.get(CONSTANTS, [])}
    for row, prefix in ROWS:
        if row not in arrays:
            continue
        values, at = arrays[row].numpy().astype(numpy.float32), 0
        for name, shape in layout.get(row, layout["model"]):
            count = int(numpy.prod(shape))
            numbers[prefix + name] = values[at : at + count].reshape(shape).copy()
            at += count
        if at != values.size:
            raise ProgramError(f"{values.size} numbers where the model has {at}")
    save(path, numbers, header)


def save(path, numbers, header):
    """Numbers by name and a line of JSON as a file."""
    save_file(numbers, path, metadata={KEY: json.dumps(header)})
