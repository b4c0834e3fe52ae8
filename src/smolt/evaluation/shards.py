"""Shards of one evaluation: OUT.shard-1-of-4 beside OUT, and their rows put together as if made in one go."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.errors import UserError
from smolt.runs import Run
from smolt.runs.identity import normal, read_manifest, refuse_other
from smolt.runs.inventory import RESULT
from smolt.runs.jsontext import decode_object

ROWS = "evaluation.jsonl"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts; `index` counts from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def places(self, total: int, chunk: int) -> range:
        """The records of this part: whole chunks, as evenly as they go.

        Raises:
            UserError: there are fewer chunks than parts, so that this one would be empty.
        """
        chunks = -(-total // chunk)
        if chunks < self.count:
            raise UserError(
                f"shard: {self}: {total} records are {chunks} chunks of {chunk}, and a shard is whole chunks; ask for "
                f"at most {chunks} shards, or make chunks smaller with a smaller batch"
            )
        start, stop = (place * chunks // self.count for place in (self.index - 1, self.index))
        return range(start * chunk, min(stop * chunk, total))


def parse_shard(text: str, field: str = "shard") -> Shard:
    """`2/4` is the second of four.

    Args:
        text: it.
        field: where it stands, for the message.

    Raises:
        UserError: it is no such thing.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"{field}: {text!r} is not of the form 2/4, the second of four")
    return Shard(int(found[1]), int(found[2]))


def shard_directory(out: Path, shard: Shard) -> Path:
    """Where a shard of the evaluation OUT works."""
    return out.with_name(f"{out.name}.shard-{shard.index}-of-{shard.count}")


def finished_shards(out: Path, manifest: dict[str, Any]) -> list[Shard]:
    """The shards of the evaluation with this manifest that lie beside OUT, in order; none where there are none.

    Raises:
        UserError: they are of several cuts, one is missing or not finished, or one was made with something else.
    """
    pattern = re.compile(re.escape(out.name) + r"\.shard-(\d+)-of-(\d+)")
    names = [pattern.fullmatch(path.name) for path in out.parent.glob("*") if path.is_dir()]
    found = sorted((int(name[2]), int(name[1])) for name in names if name is not None)
    if not found:
        return []
    counts = {count for count, _ in found}
    if len(counts) > 1:
        raise UserError(f"{out}: there are shards of {' and of '.join(map(str, sorted(counts)))} parts; remove one set")
    shards = [Shard(index, found[0][0]) for index in range(1, found[0][0] + 1)]
    unfinished = [str(shard) for shard in shards if not (shard_directory(out, shard) / RESULT).is_file()]
    if unfinished:
        raise UserError(
            f"{out}: shard {', '.join(unfinished)} not finished: run this command with --shard {unfinished[0]}, or "
            "remove the shards' directories to measure in one go"
        )
    for shard in shards:
        folder = shard_directory(out, shard)
        recipe = {**manifest["recipe"], "shard": str(shard)}
        refuse_other(folder, read_manifest(folder), normal({**manifest, "recipe": recipe}))
    return shards


def gather(run: Run, out: Path, shards: list[Shard], total: int) -> None:
    """Put the rows of all shards into a run, in order; afterwards nothing of it is left to do."""
    run.load_checkpoint()
    for shard in shards:
        folder = shard_directory(out, shard)
        with (folder / ROWS).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                run.sample(decode_object(line, f"{folder / ROWS}:{number}"))
    run.save_checkpoint(total, {}, {}, keep=1)
