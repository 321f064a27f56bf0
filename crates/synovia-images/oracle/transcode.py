"""Copies of a folder of DICOM files in other transfer syntaxes, for measuring ingest.

  pip install pydicom==3.0.2 python-gdcm numpy
  python transcode.py FOLDER OUT_JPEG_LOSSLESS OUT_JPEG_2000
"""
import sys
from multiprocessing import Pool
from pathlib import Path

import gdcm


def one(args):
    source, target, syntax = args
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read(), source
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change(), source
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write(), target


if __name__ == "__main__":
    folder, lossless, j2k = map(Path, sys.argv[1:])
    syntaxes = [(lossless, gdcm.TransferSyntax.JPEGLosslessProcess14_1), (j2k, gdcm.TransferSyntax.JPEG2000Lossless)]
    for out, _ in syntaxes:
        out.mkdir(parents=True, exist_ok=True)
    jobs = [(f, out / f.name, syntax) for f in sorted(folder.glob("*.dcm")) for out, syntax in syntaxes]
    with Pool(2) as pool:
        pool.map(one, jobs, chunksize=16)
