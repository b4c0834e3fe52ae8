"""`smolt export`: adapters, runs and pre-trained models go out; what llama.cpp would compute otherwise is refused."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.data import Turn
from smolt.models.gguf.destination import title_of
from smolt.models.gguf.modelfile import modelfile, prompt_of
from smolt.models.gguf.pretokenizers import SPLITS, WRITTEN, pre_of
from smolt.models.gguf.reader import import_gguf
from smolt.models.gguf.vocabulary import vocabulary_of
from smolt.models.rendering import Renderer, load_renderer
from tests import tokenizers_on_the_spot as made
from tests.gguf_files import LlamaCpp
from tests.tiny import tiny_model, tiny_tokenizer


def export(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def logits(folder: Path, **read: Any) -> torch.Tensor:
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **read)
    with torch.no_grad():
        found: torch.Tensor = network.eval()(torch.arange(4, 64)[None]).logits
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_an_adapter_goes_out_merged(tmp_path: Path) -> None:
    """rsLoRA with ranks and alphas by pattern: the file's logits are peft's to 1e-4, and not the base's."""
    base = tiny_model(tmp_path / "base")
    settings = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"down_proj": 2},
        alpha_pattern={"q_proj": 3},
        task_type="CAUSAL_LM",
    )
    peft = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in sorted((name, weight) for name, weight in peft.named_parameters() if "lora_" in name):
            weight.copy_(0.2 * torch.randn(weight.shape, generator=draw))
        wanted = peft.eval()(torch.arange(4, 64)[None]).logits
    peft.save_pretrained(tmp_path / "adapter")
    done = export(tmp_path / "adapter", "--gguf", "--type", "f32", "--out", tmp_path / "m.gguf", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["architecture"], facts["type"], facts["context_length"]) == ("llama", "f32", 128)
    found = logits(tmp_path, gguf_file="m.gguf")
    assert float((found - wanted).abs().max()) < 1e-4 < float((found - logits(base)).abs().max())


def test_a_tuned_model_goes_out_by_the_name_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of `smolt sft`: NAME-TYPE.gguf where one stands, llama.cpp's greedy answer is smolt's."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "base")
    rows = [{"prompt": f"What is {number}?", "completion": f"It is {number}."} for number in range(20)]
    Path("shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("tune.yaml").write_text(
        "model: {path: base, device: cpu, dtype: fp32}\ndata: {path: shown.jsonl}\nlora: {rank: 4, alpha: 8}\n"
        "optim: {lr: 3e-2}\nbudget: {updates: 10}\nbatch: 8\n"
    )
    tuned = CliRunner().invoke(app, ["sft", "tune.yaml", "--out", "runs/tuned"])
    assert tuned.exit_code == 0, tuned.output
    done = export("runs/tuned", "--gguf", "--type", "f32")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("complete: tuned-f32.gguf: llama, 24,032 weights (tensors: 20 in F32), 0.1 MB")
    assert done.stdout.endswith("next:\n  llama-server -m tuned-f32.gguf\n")
    assert CliRunner().invoke(app, ["merge", "runs/tuned", "--out", "merged"]).exit_code == 0
    assert float((logits(tmp_path, gguf_file="tuned-f32.gguf") - logits(tmp_path / "merged")).abs().max()) == 0.0
    chat = ["chat", "runs/tuned", "--max-tokens", "8", "--temperature", "0", "--dtype", "fp32"]
    said = CliRunner().invoke(app, chat, input="What is 3?\n").stdout
    asked = {"messages": [{"role": "user", "content": "What is 3?"}], "max_tokens": 8, "temperature": 0}
    reply = LlamaCpp(Path("tuned-f32.gguf")).ask("v1/chat/completions", **asked)
    answer = reply["choices"][0]["message"]["content"].strip()
    assert len(answer) > 4 and answer in said


def test_a_pretrained_model_goes_out_with_its_own_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of `smolt pretrain`: it asks as it was trained, without a chat template of its own, in both readers."""
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} and {n + 1} make {2 * n + 1}."}) + "\n" for n in range(99))
    )
    Path("small.yaml").write_text(
        "data: {path: text.jsonl}\ntokenizer: {vocab: 300}\nshape: {hidden: 16, layers: 1, heads: 2, mlp: 32}\n"
        "budget: {updates: 2}\nmodel: {device: cpu, dtype: fp32}\n"
    )
    begun = CliRunner().invoke(app, ["pretrain", "small.yaml", "--out", "runs/small"])
    assert begun.exit_code == 0, begun.output
    done = export("runs/small", "--gguf", "--type", "f32", "--json")
    facts = json.loads(done.stdout)
    assert (facts["out"], facts["pre_tokenizer"], facts["chat_template"]) == ("small-f32.gguf", "smollm", False)
    import_gguf(Path("small-f32.gguf"), tmp_path / "in")
    own, again, theirs = load_renderer("runs/small/model"), load_renderer("in"), LlamaCpp(Path("small-f32.gguf"))
    asked = Turn("user", "What are 12 and 13?")
    assert own.context((asked,))[0] == own.tokenizer.bos_token_id
    assert theirs.context(asked) == again.context((asked,)) == own.context((asked,))
    assert float((logits(tmp_path / "in") - logits(Path("runs/small/model"))).abs().max()) == 0.0


REFUSED: dict[str, tuple[list[str], str]] = {
    "no format": ([], "say as what: --gguf"),
    "kind": (["--gguf", "--type", "q4_0"], "type: 'q4_0' is unknown; choose f32, f16, bf16, q8_0"),
    "taken": (["--gguf", "--out", "taken.gguf"], "taken.gguf: is there already; --fresh sets it aside"),
    "directory": (["--gguf", "--out", "."], "is a directory; --out names a file"),
    "nowhere": (["--gguf", "--out", "no/m.gguf"], "no/m.gguf: there is no directory no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(Path("model"))
    Path("taken.gguf").write_text("mine")
    words, message = REFUSED[case]
    done = export("model", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "taken.gguf"]
    assert Path("taken.gguf").read_text() == "mine"


def changed(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
COMPUTED_OTHERWISE: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt_neo": ("gpt_neo", {}, "model_type: gpt_neo is not written as GGUF; known: llama, mistral, qwen2, qwen3, gpt2"),
    "activation": ("llama", {"hidden_act": "gelu"}, "hidden_act: 'gelu': llama.cpp computes llama with 'silu' only"),
    "positions": ("llama", {"rope_parameters": YARN}, "rope_parameters: rope_type: yarn: is not written as GGUF here"),
    "scale": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: True: llama.cpp"),
    "gemma's scale": ("gemma3_text", {"query_pre_attn_scalar": 32}, "llama.cpp scales attention by head_dim, 8"),
    "layers": (
        "gemma3_text",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "layer_types: llama.cpp knows one full_attention layer after every n sliding ones",
    ),
}


@pytest.mark.parametrize("case", COMPUTED_OTHERWISE)
def test_what_llama_cpp_computes_otherwise(case: str, tmp_path: Path) -> None:
    architecture, fields, message = COMPUTED_OTHERWISE[case]
    own = tiny_model(tmp_path / "model", architecture)  # type: ignore[arg-type]  # a name of ARCHITECTURES
    changed(own, **fields)
    done = export(own, "--gguf", "--out", tmp_path / "m.gguf")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "m.gguf").exists()


def test_a_reward_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig.from_pretrained(tiny_model(tmp_path / "base"), num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    done = export(tmp_path / "model", "--gguf", "--out", tmp_path / "m.gguf")
    assert done.exit_code == 2 and "is a reward model; llama.cpp runs language models" in done.stderr


def test_tokenizers_that_llama_cpp_has_not(tmp_path: Path) -> None:
    """Each is refused by what it does, before anything is written."""
    whitespace, lower, whole = tiny_tokenizer(), tiny_tokenizer(), tiny_tokenizer()
    whitespace.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    described = json.loads(lower.backend_tokenizer.to_str())
    described["normalizer"] = {"type": "Lowercase"}
    lower._tokenizer = type(lower.backend_tokenizer).from_str(json.dumps(described))
    whole.backend_tokenizer.model.ignore_merges = True
    for name, tokenizer, message in (
        ("whitespace", whitespace, "splits text by Whitespace + ByteLevel, which is none of the splits of llama.cpp"),
        ("lower", lower, "changes text by Lowercase, which llama.cpp does not"),
        ("whole", whole, "splits text by ByteLevel, whole words before merges, which is none"),
        ("unigram", made.unigram(), "its tokenizer is Unigram; BPE with bytes"),
    ):
        own = tiny_model(tmp_path / name, chat=False)
        tokenizer.save_pretrained(own)
        done = export(own, "--gguf", "--out", tmp_path / "m.gguf")
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("split", SPLITS)
def test_the_split_is_known_by_what_it_does(split: str) -> None:
    """Every split under the name that is written for it, and Llama 3's by its own where whole words come first."""
    backend = tiny_tokenizer().backend_tokenizer
    backend.pre_tokenizer = SPLITS[split]()
    assert pre_of(backend) == WRITTEN[split]
    backend.model.ignore_merges = True
    if split == "llama3":
        assert pre_of(backend) == "llama-bpe"


def test_a_window_ends_the_context(tmp_path: Path) -> None:
    """llama.cpp knows no window in this architecture: the context is no longer than it, which is said."""
    own = tiny_model(tmp_path / "model")
    changed(own, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=40)
    done = export(own, "--gguf", "--out", tmp_path / "m.gguf")
    assert (
        "note: llama.cpp knows no attention window in this architecture: the context ends with it, at 40" in done.stdout
    )
    field = gguf.GGUFReader(tmp_path / "m.gguf").get_field("llama.context_length")
    assert field is not None and field.contents() == 40


# --- Ollama -----------------------------------------------------------------------------------------------------------

GRAMMAR = re.compile(
    r'(?:#[^\n]*\n|FROM \./(?P<file>[^\n"]+)\n|(?P<word>TEMPLATE|SYSTEM) """(?P<text>(?:(?!""").)*)"""\n'
    r'|PARAMETER (?P<name>[a-z_]+) (?P<value>"[^"\n]+"|[\d.]+)\n)',
    re.DOTALL,
)
"""The lines of a Modelfile, after Ollama's own page on it."""


def parsed(text: str) -> dict[str, list[str]]:
    """The instructions of a Modelfile; it is nothing but instructions and comments."""
    found: dict[str, list[str]] = {}
    at = 0
    while at < len(text):
        line = GRAMMAR.match(text, at)
        assert line is not None, text[at : at + 80]
        for name, value in (("FROM", line["file"]), (line["word"], line["text"]), (line["name"], line["value"])):
            if name and value is not None:
                found.setdefault(name, []).append(value)
        at = line.end()
    return found


def test_a_modelfile_beside_the_file(tmp_path: Path) -> None:
    """It names the file, prompt, stop token, context and the sampling of `smolt chat`; one that is there is kept."""
    own = tiny_model(tmp_path / "model")
    words = (own, "--gguf", "--out", tmp_path / "m.gguf", "--modelfile")
    done = export(*words)
    assert done.exit_code == 0 and done.stdout.endswith(f"next:\n  ollama create NAME -f {tmp_path / 'm.Modelfile'}\n")
    found = parsed((tmp_path / "m.Modelfile").read_text())
    assert found == {
        "FROM": ["m.gguf"],
        "TEMPLATE": [
            '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
            '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
            '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
            "{{ end }}{{ end }}<|im_start|>assistant\n"
        ],
        "stop": ['"<|im_end|>"'],
        "num_ctx": ["128"],
        "temperature": ["0.7"],
        "top_k": ["0"],
        "top_p": ["1.0"],
        "repeat_penalty": ["1.0"],
    }
    (tmp_path / "m.gguf").unlink()
    assert f"{tmp_path / 'm.Modelfile'}: is there already" in export(*words).stderr
    assert export(*words, "--fresh").exit_code == 0 and (tmp_path / "m.Modelfile.old-1").is_file()


PROMPTS: dict[str, tuple[Any, str | None]] = {
    "smollm": (made.smollm, None),
    "qwen": (made.qwen, "You are a helpful assistant."),
    "thinking": (made.thinking, None),
    "llama2": (made.llama2, None),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_ollamas_prompt_is_the_renderers(kind: str) -> None:
    """A dialogue in the language of Go's templates is the text whose tokens the model was trained on."""
    make, system = PROMPTS[kind]
    renderer = Renderer(make())
    prompt = prompt_of(renderer, vocabulary_of(renderer, len(renderer.tokenizer)))
    assert prompt is not None and prompt.system == system
    for turns in (
        (Turn("user", "One?"),),
        (Turn("user", "One?"), Turn("assistant", "Two."), Turn("user", "Three?")),
    ):
        assert prompt.text(turns) == renderer.text(turns)
    assert parsed(modelfile("m.gguf", renderer, vocabulary_of(renderer, 999), LlamaConfig())).get("SYSTEM") == (
        [system] if system else None
    )


def test_a_template_without_counterpart_is_left_out() -> None:
    """One that numbers its turns is no text around each turn; the Modelfile says so and has the rest."""
    tokenizer = copy.deepcopy(made.qwen())  # the renderer gives it the template
    numbered = "{% for m in messages %}{{ loop.index ~ m['role'] ~ ': ' ~ m['content'] ~ '<|im_end|>\\n' }}{% endfor %}"
    opened = "{% if add_generation_prompt %}{{ messages | length + 1 }}assistant: {% endif %}"
    renderer = Renderer(tokenizer, numbered + opened)
    text = modelfile("m.gguf", renderer, vocabulary_of(renderer, len(tokenizer)), LlamaConfig())
    assert "# No TEMPLATE" in text and parsed(text).keys() >= {"FROM", "stop", "num_ctx"}


@pytest.mark.parametrize(("style", "after"), [("plain", ""), ("question", "\n")])
def test_a_model_that_answers_one_question(style: str, after: str) -> None:
    """Without a chat template: the question, and what stood after it in training."""
    renderer = Renderer(made.metaspace(), style=style)
    text = modelfile("m.gguf", renderer, vocabulary_of(renderer, len(renderer.tokenizer)), LlamaConfig())
    assert parsed(text)["TEMPLATE"] == ["{{ .Prompt }}" + after]
    assert renderer.text((Turn("user", "Why?"),)) == f"<s>Why?{after}"


def test_titles(tmp_path: Path) -> None:
    """The name of a directory, of the run whose model it is, of a file, of a hub's model."""
    (tmp_path / "runs" / "one" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "manifest.json").write_text('{"format": "smolt-run/1"}')
    (tmp_path / "some.gguf").touch()
    assert title_of(str(tmp_path / "some" / "model")) == "model"
    assert title_of(str(tmp_path / "runs" / "one" / "model")) == title_of(str(tmp_path / "runs" / "one")) == "one"
    assert title_of(str(tmp_path / "some.gguf")) == "some"
    assert title_of("owner/name-135M") == "name-135M"


def test_no_weight_is_left_out(tmp_path: Path) -> None:
    """As many numbers as the model's own files hold."""
    own = tiny_model(tmp_path / "model", "gpt2")
    with safe_open(own / "model.safetensors", "pt") as weights:
        held = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118  (no mapping)
    facts = json.loads(export(own, "--gguf", "--out", tmp_path / "m.gguf", "--json").stdout)
    assert facts["parameters"] == held
