"""Tests of paths that users write: false, and no `OSError`, where the file system refuses a path, as one too long."""

import os.path

is_file, is_folder = os.path.isfile, os.path.isdir
