"""What can go wrong, by whose move mends it.

    PlateglassError
    ├── UserError (ValueError)     settings or sheets: edit config.yaml, plates.csv or the platemap
    ├── DataError (ValueError)     files of a plate: the image
    ├── DamageError (RuntimeError) what an earlier stage stored: the next run looks and makes it anew
    └── SetupError (RuntimeError)  the machine: weights, disk space, device

Each message says what is wrong, where (plate, well, file, row, key) and what to do. The command line
prints these without a traceback; anything else is a bug and gets one.
"""

from pathlib import Path


class PlateglassError(Exception):
    """Root of the errors with a message for the user; ``exit_code`` is the command's."""

    exit_code = 1


class UserError(PlateglassError, ValueError):
    """Settings or sheets that cannot be followed; nothing has been computed."""

    exit_code = 2


class DataError(PlateglassError, ValueError):
    """Content of a file that cannot be used; the well or site is quarantined with this reason."""

    exit_code = 3


class DamageError(PlateglassError, RuntimeError):
    """What an earlier stage stored is missing or damaged. The job fails, nothing is judged by it.

    The next run looks at every file of that plate, so "give the same command again" is the advice.
    """

    exit_code = 3

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path}: {what}; give the same command again, what is lost is made anew")
        self.path, self.what = path, what

    def __reduce__(self):  # workers hand it over
        return type(self), (self.path, self.what)


class SetupError(PlateglassError, RuntimeError):
    """The machine lacks something: model weights, free space, the device asked for."""

    exit_code = 4
