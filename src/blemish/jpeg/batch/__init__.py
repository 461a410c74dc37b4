"""Encode many images as smaller JPEG files: into an output folder, or each file in its place.

A log, ``blemish-jpeg.jsonl`` in the output folder (in place: in the folder of the images), has one line for each
file: the SHA-256 of the input and of the output, and the settings. The line is written before its file. A file
without a line therefore comes from elsewhere and is left alone; a line without its file means that the image is
encoded again.
"""

from __future__ import annotations

from blemish.jpeg.batch.records import JOURNAL_FILE as JOURNAL_FILE
from blemish.jpeg.batch.records import BatchResult as BatchResult
from blemish.jpeg.batch.records import EncodedFile as EncodedFile
from blemish.jpeg.batch.run import PROTECTION_FILE as PROTECTION_FILE
from blemish.jpeg.batch.run import encode_folder as encode_folder
from blemish.jpeg.batch.settings import BatchSettings as BatchSettings
