"""The processes that compute together, as the rest of the project sees them: often one alone."""

import contextlib
import dataclasses
import io
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf.distribute.channel import Channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Team:
    """A process among those that compute together. All of them must call the methods that say so, in the same order.

    Attributes:
      channel: to the others; None where this process is alone.
    """

    channel: Channel | None = None

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.channel.cluster.size if self.channel else 1

    @property
    def index(self) -> int:
        """The number of this one, from 0."""
        return self.channel.cluster.index if self.channel else 0

    @property
    def is_chief(self) -> bool:
        """Whether this one writes."""
        return self.index == 0

    @contextlib.contextmanager
    def writing(self, folder: str | pathlib.Path) -> Iterator[pathlib.Path]:
        """Yield the folder to the chief, and to every other one a folder that is removed afterwards."""
        if self.is_chief:
            yield pathlib.Path(folder)
            return
        with tempfile.TemporaryDirectory(prefix=f"worker-{self.index}-") as scratch:
            yield pathlib.Path(scratch)

    def from_chief(self, make: Callable[[], Any]) -> Any:
        """Return what `make()` gives the chief, as JSON holds it; all must call this."""
        if self.channel is None:
            return make()
        made = json.dumps(make()).encode() if self.is_chief else b""
        return json.loads(self.channel.from_chief(made))

    def all_of(self, value: Any) -> list:
        """Return what every process says, by index, as JSON holds it; all must call this."""
        if self.channel is None:
            return [value]
        return [json.loads(word) for word in self.channel.exchange(json.dumps(value).encode())]

    def summed(self, numbers: Iterable[int]) -> list[int]:
        """Return the sums of whole numbers over all processes; all must call this."""
        return [sum(column) for column in zip(*self.all_of([int(number) for number in numbers]), strict=True)]

    def exchange(self, arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the arrays of every process, by index; all must call this."""
        if self.channel is None:
            return [arrays]
        return [_arrays(word) for word in self.channel.exchange(_bytes(arrays))]

    def share(self, variables: Iterable[tf.Variable]) -> None:
        """Give every process the values that variables have at the chief; all must call this."""
        if self.channel is None:
            return
        variables = list(variables)
        names = [f"{place}" for place in range(len(variables))]
        mine = {name: variable.numpy() for name, variable in zip(names, variables, strict=True)}
        values = _arrays(self.channel.from_chief(_bytes(mine) if self.is_chief else b""))
        if not self.is_chief:
            for name, variable in zip(names, variables, strict=True):
                variable.assign(values[name])


ALONE = Team()


def _bytes(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(value) for name, value in arrays.items()})
    return buffer.getvalue()


def _arrays(word):
    with np.load(io.BytesIO(word), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
