"""Options that several commands around a model share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model, adapter or run directory, a GGUF file, or a hub name.")
]
DataPath = Annotated[str, typer.Argument(metavar="DATA", help="Questions: JSONL, Parquet or a data set.")]
OutFile = Annotated[Path, typer.Option("--out", help="Directory to write samples.jsonl into.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, its stop token included.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 = greedy.")]
Samples = Annotated[int, typer.Option(min=1, help="Answers per question.")]
Batch = Annotated[int, typer.Option(min=1, help="Answers decoded side by side.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same answers.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first so many questions.")]
Format = Annotated[str | None, typer.Option("--format", help="Format of the data; detected unless given.")]
Split = Annotated[str | None, typer.Option(help="Split of a data set with several.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable rows out.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DType = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Weights = Annotated[
    Literal["int8"] | None,
    typer.Option(help="int8: few answers at a time from weights in 8 bits, on a processor; what it changes is said."),
]
