"""The commands around models: sample, chat, ui, serve, merge, suite; and report, which writes a report again."""

import importlib.util
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from smolt.cli.eval import evaluate
from smolt.cli.options import (
    Batch,
    DataPath,
    Device,
    DType,
    Format,
    Limit,
    MaxTokens,
    ModelPath,
    OutFile,
    Samples,
    Seed,
    Split,
    Temperature,
    Weights,
)
from smolt.cli.outcomes import INTERRUPTED, SHARING, Outcome, Stopped, deliver, delivered, shared
from smolt.cli.suite import suite
from smolt.cli.train import Fresh, look_first

LOOPBACK = "127.0.0.1"
SERVE_EXTRA = 'smolt serve needs packages that are not installed: pip install -c constraints.txt "smolt-align[serve]"'
API_KEY = "SMOLT_API_KEY"
SERVED = "smolt serve has ended"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    named = {"sample": sample, "eval": evaluate, "report": report, "chat": chat, "import": import_model, "merge": merge}
    for name, command in named.items():
        app.command(name, epilog=SHARING if name in ("sample", "eval") else None)(command)
    app.command("export")(export)
    app.command("push")(push)
    app.command("suite", epilog=SHARING)(suite)
    app.command("ui")(ui)
    app.command("serve")(serve)


@shared
def sample(
    model: ModelPath,
    data: DataPath,
    out: OutFile,
    samples: Samples = 1,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 1.0,
    batch: Batch = 64,
    seed: Seed = 0,
    limit: Limit = None,
    record_format: Format = None,
    split: Split = None,
    device: Device = "auto",
    dtype: DType = "auto",
    fresh: Fresh = False,
) -> Outcome:
    """Let a model answer questions; the answers go to OUT/samples.jsonl."""
    from smolt.cli.progress import counting
    from smolt.config import Data, EvaluationSampling, Model, make_block

    who = make_block(Model, path=model, device=device, dtype=dtype)
    asked = make_block(Data, path=data, format=record_format, split=split, limit=limit)
    look_first(out, who, asked)
    from smolt.evaluation.answer_file import write_answers

    with counting("questions") as show:
        facts = write_answers(
            who,
            asked,
            make_block(EvaluationSampling, max_tokens=max_tokens, temperature=temperature, batch=batch),
            out=out,
            samples=samples,
            seed=seed,
            fresh=fresh,
            progress=show,
        )
    return Outcome({**facts, "out": str(out)}, f"{facts['status']}: {facts['n']} answers in {out / 'samples.jsonl'}")


@delivered
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished study or evaluation.")],
) -> Outcome:
    """Write a report again from its record."""
    from smolt.report.report import rewrite_report
    from smolt.runs.jsontext import read_object

    rewrite_report(directory)
    facts = read_object(directory / "report.json")
    return Outcome(facts, f"the report is {directory / 'report.html'}")


def chat(
    model: ModelPath,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens that hold this much probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 = all.")] = 0,
    repetition: Annotated[
        float,
        typer.Option(min=1, help="Penalty of tokens the answer holds already, 1.1 to 1.3 against loops; 1 = off."),
    ] = 1.0,
    seed: Seed = 0,
    against: Annotated[
        str | None, typer.Option("--against", metavar="OTHER", help="A second model that is asked the same.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Remember typed lines in the user's state directory.")
    ] = True,
    weights: Weights = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Talk to a model in the terminal, or ask two the same; /help lists what can be typed."""

    def work() -> Outcome:
        from smolt.config import ChatSampling, Model, make_block

        machine = make_block(Model, path=model, device=device, dtype=dtype)
        other = None if against is None else make_block(Model, path=against, device=device, dtype=dtype)
        sampling = make_block(
            ChatSampling,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition=repetition,
            seed=seed,
        )
        look_first(None, *(one for one in (machine, other) if one is not None))
        from smolt.cli.chat import chat as converse

        try:
            converse(machine, sampling, system, against=other, history=history, int8=weights is not None)
        except KeyboardInterrupt:
            raise Stopped(INTERRUPTED, "interrupted") from None
        return Outcome({})

    deliver(work, as_json=False, ended="terminated")


@delivered
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file, of Ollama's or LM Studio's store too.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the model.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Set an earlier import that is there aside.")] = False,
) -> Outcome:
    """Make a model directory of a GGUF file: dequantised weights, tokenizer, stop tokens, chat template."""
    from smolt.models.gguf.reader import import_gguf

    facts = import_gguf(file, out, fresh=fresh)
    kinds = ", ".join(f"{count} in {name}" for name, count in facts["matrices"].items())
    template = "" if facts["chat_template"] else "; it has no chat template (a base model?)"
    words = f"{facts['status']}: {facts['parameters']:,} weights in {facts['dtype']} (matrices: {kinds}) are in {out}"
    return Outcome(facts, words + template, commands=[f"smolt chat {shlex.quote(str(out))}"])


@delivered
def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter directory, or a run that holds one.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the merged model.")],
    dtype: Annotated[str, typer.Option(help="auto (as the base is stored), fp32, bf16 or fp16.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Set an earlier merge that is there aside.")] = False,
) -> Outcome:
    """Merge an adapter into its base: a standalone model directory, checked against the adapter."""
    from smolt.config import Model, make_block

    look_first(None, make_block(Model, path=adapter))
    from smolt.models.merging import merge as merge_adapter

    facts = merge_adapter(adapter, out, dtype=dtype, fresh=fresh)
    whole = facts.get("matrices") == 0
    whose = "the model's" if whole else "the adapter model's"
    words = f"{facts['status']}: the merged model is in {out}"
    words += " (there was no adapter to merge: the weights are the model's own)" if whole else ""
    if "difference_stored" in facts:
        stored, exact = facts["difference_stored"], facts["difference"]
        apart = f"differ from {whose} by up to {stored:.1e} as it is stored, by {exact:.1e} in fp32"
        apart += " (--dtype fp32 stores that)"
        words += f"\nits logits {apart if stored or exact else f'equal {whose}'}"
    return Outcome(facts, words, commands=[f"smolt chat {shlex.quote(str(out))}"])


@delivered
def export(
    model: ModelPath,
    as_gguf: Annotated[
        bool, typer.Option("--gguf", help="One GGUF file, for llama.cpp, Ollama and LM Studio.")
    ] = False,
    kind: Annotated[str, typer.Option("--type", help="Matrices as f32, f16, bf16 or q8_0.")] = "f16",
    out: Annotated[Path | None, typer.Option("--out", help="The file; NAME-TYPE.gguf here unless given.")] = None,
    with_modelfile: Annotated[bool, typer.Option("--modelfile", help="Write Ollama's Modelfile beside it.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set a file that is there aside.")] = False,
) -> Outcome:
    """Write a model as one file for other programs; an adapter is merged into its base first."""
    from smolt.config import Model, make_block
    from smolt.errors import UserError
    from smolt.models.gguf.destination import files_for

    if not as_gguf:
        raise UserError("export: say as what: --gguf, the one format there is")
    files_for(model, out, kind, fresh, with_modelfile)
    look_first(None, make_block(Model, path=model))
    from smolt.models.gguf.writer import export_gguf

    facts = export_gguf(model, out, kind, fresh=fresh, with_modelfile=with_modelfile)
    kinds = ", ".join(f"{count} in {name}" for name, count in facts["tensors"].items())
    size = f"{facts['parameters']:,} weights (tensors: {kinds}), {facts['bytes'] / 1e6:,.1f} MB"
    lines = [
        f"complete: {facts['out']}: {facts['architecture']}, {size}",
        *(f"note: {text}" for text in facts["notes"]),
    ]
    made = facts["modelfile_out"]
    command = f"ollama create NAME -f {shlex.quote(made)}" if made else f"llama-server -m {shlex.quote(facts['out'])}"
    return Outcome(facts, "\n".join(lines), commands=[command])


@delivered
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, adapter or run directory.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The hub's repository; made if there is none.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Upload; without it only what would go is shown.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A repository that is made can be seen by all.")] = False,
) -> Outcome:
    """Upload a model directory's own files to a hub, with a model card; shows first what would go."""
    from smolt.config import Model, make_block

    look_first(None, make_block(Model, path=model))
    from smolt.models.publishing import hub

    parcel = hub.pack(model, repository)
    sizes = parcel.sizes
    lines = [f"{size:>15,}  {name}" for name, size in sorted(sizes.items())]
    lines.append(f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files of {parcel.directory}")
    lines += ["README.md is written for it: a model card of what is known"] if parcel.card is not None else []
    lines += [f"left here: {', '.join(parcel.left_out)}"] if parcel.left_out else []
    facts: dict[str, Any] = {
        "status": "shown",
        "repository": repository,
        "files": sizes,
        "left_out": parcel.left_out,
        "card": parcel.card,
    }
    if not yes:
        kind = "public" if public else "private"
        lines.append(f"nothing was sent; --yes uploads this to {repository} (made {kind} if there is none)")
        return Outcome(facts, "\n".join(lines))
    address = hub.push(parcel, private=not public)
    return Outcome({**facts, "status": "complete", "address": address}, "\n".join([*lines, f"complete: {address}"]))


def ui(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models, PATH or NAME=PATH.")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="The runs directory; with models to offer.")] = Path("runs"),
    pairs: Annotated[str | None, typer.Option("--pairs", help="Preferences to label; else the store's pairs.")] = None,
    store: Annotated[Path | None, typer.Option("--store", help="Labels and votes; RUNS/labels.sqlite.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="A free one from 7860 on unless given.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; another than this machine needs a password.")] = LOOPBACK,
    password_env: Annotated[
        str | None, typer.Option("--password-env", help="The environment variable that holds the password.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Chat, compare models blind, label, watch runs and write recipes in the browser."""

    def work() -> Outcome:
        from smolt.ui.environment import Face, own_environment, password_from

        password = password_from(host, password_env)
        with own_environment() as before:
            face = Face(
                tuple(models or ()),
                runs,
                store if store is not None else runs / "labels.sqlite",
                pairs=pairs,
                host=host,
                port=port,
                password=password,
                device=device,
                dtype=dtype,
                environment=before,
            )
            typer.echo("smolt ui is starting ...", err=True)
            from smolt.ui.server import serve_face

            try:
                serve_face(face, lambda address: typer.echo(f"smolt ui: {address} (Ctrl-C ends it)"))
            except KeyboardInterrupt:
                raise Stopped(INTERRUPTED, "smolt ui has ended; labels, votes and runs are on the disk") from None
        return Outcome({})

    deliver(work, as_json=False, ended="smolt ui has ended; labels, votes and runs are on the disk")


def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Models, PATH or NAME=PATH.")],
    host: Annotated[str, typer.Option(help="Where to listen; another than this machine needs a key.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", help=f"What clients must send; better in {API_KEY}, where no list of processes shows it."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A further name this server is asked by; repeatable.")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Answers of one model decoded side by side.")] = 16,
    queue: Annotated[int, typer.Option(min=0, help="Answers of one model that may wait for a slot.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer where a request does not say.")] = 1024,
    memory: Annotated[
        float | None,
        typer.Option(min=0.001, help="GiB for prompts and answers of one model; half of what is free unless given."),
    ] = None,
    adapters: Annotated[
        int,
        typer.Option(min=0, max=64, help="Adapters that clients may load beside (/v1/load_lora_adapter), at a time."),
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Serve models behind OpenAI's interface: chat completions, completions, streams."""

    def work() -> Outcome:
        from smolt.config import Model, make_block
        from smolt.errors import UserError

        if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
            raise UserError(SERVE_EXTRA)
        from smolt.serving.address import Address, named_models

        named = named_models(models)
        address = Address(host, port, tuple(allow_host or ()), api_key or os.environ.get(API_KEY) or None)
        address.check()
        for path in named.values():
            look_first(None, make_block(Model, path=path, device=device, dtype=dtype, threads=threads))
        typer.echo("smolt serve is starting ...", err=True)
        from smolt.cli.progress import moved_on
        from smolt.serving.engine import Engine
        from smolt.serving.listening import serve as listen

        def ready(url: str) -> None:
            moved_on()
            for name in engine.names if weights else ():
                typer.echo(engine.note(name), err=True)
            typer.echo(f"smolt serve: {url} (Ctrl-C ends it)")

        try:
            shape: dict[str, Any] = {"slots": slots, "queue": queue, "adapters": adapters, "int8": weights is not None}
            engine = Engine(named, **shape, device=device, dtype=dtype, threads=threads, memory=memory)
            listen(engine, address, max_tokens, ready)
        except KeyboardInterrupt:
            raise Stopped(INTERRUPTED, SERVED) from None
        return Outcome({})

    deliver(work, as_json=False, ended=SERVED)
