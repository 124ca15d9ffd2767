"""What becomes of a model type on a person's way with default settings, from folder to answers."""

import math
import re
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.answering.batching import why_alone
from lit.answering.generation import GenerationError, answers
from lit.answering.sampling import Sampling
from lit.exporting.probe import relative_difference
from lit.model.architecture import model_class
from lit.model.loading import load_weights
from lit.model.loss import summed_loss
from lit.model.peft_note import describe_misreading
from lit.model.preparation import ModelSpec, use_checkpointing
from lit.model.start_checks import check_model
from lit.packing.pack import pack, unpacked
from lit.preflight.coverage import shares_not_adapted
from lora.config import ConfigError, LoRAConfig
from lora.injection import lora_layers, merge, trainable_parameters
from lora.storage.adapter import load_adapter, save_adapter
from tests.families.model import make, make_family
from tests.families.others import OTHER_WRAPPERS, OTHERS
from tests.families.table import FAMILIES
from tests.families.wrappers import WRAPPERS, make_wrapper

CPU = torch.device("cpu")
LENGTHS = (40, 24, 32)
STEPS, RATE = 6, 1e-2
CLOSE = 1e-3
"""The relative difference of logits that rounding may cause; experts round by how many tokens."""
NEW = 2
QUESTIONS = ([7, 11, 4], [9, 5, 6, 8, 12])


@dataclass
class Record:
    """What was found; an empty text where there is nothing to say."""

    name: str
    model: str = ""
    """The class that it loads as."""
    refused: str = ""
    """The one line that refuses the type."""
    layers: list[str] = field(default_factory=list)
    """Last names of the layers that adapters go on by default."""
    left: dict[str, float] = field(default_factory=dict)
    """Shares of the parameters that no adapter changes."""
    row_by_row: str = ""
    """Why its rows are not packed."""
    one_at_a_time: str = ""
    """Why its questions are not answered in batches."""
    lacks: list[str] = field(default_factory=list)
    """What it cannot do, and lit or transformers says so in one line."""
    faults: list[str] = field(default_factory=list)
    """What is wrong, and nothing says so."""

    @property
    def verdict(self) -> str:
        """What becomes of the type, in the words of docs/models.md."""
        if self.faults:
            return f"wrong: {'; '.join(self.faults)}"
        if self.refused:
            # Losses differ from one processor to another.
            return f"refused: {re.sub(r'[0-9]+[.][0-9]{4}', '…', self.refused)}"
        if self.lacks:
            return f"in part: {'; '.join(self.lacks)}"
        return "right, row by row" if self.row_by_row else "right"


def record(name: str) -> Record:
    """Take a small model of a type through loading, training, saving, merging and answering."""
    found = Record(name)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        made = make_type(name)
        found.model = type(made).__name__
        made.save_pretrained(base)
        try:
            _Way(found, base, Path(folder)).go()
        except ConfigError as error:
            found.refused = str(error).replace(f"{base}", "the model")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            found.faults.append(
                f"{type(error).__name__} in {Path(where.filename).name}: {str(error)[:120]}"
            )
    return found


class _Way:
    def __init__(self, found: Record, base: Path, folder: Path) -> None:
        self.found, self.base, self.folder = found, base, folder
        config = AutoConfig.from_pretrained(base)
        self.vocabulary = config.get_text_config(decoder=True).vocab_size
        generator = torch.Generator().manual_seed(0)
        rows = [torch.randint(3, 300, (n,), generator=generator).tolist() for n in LENGTHS]
        self.batch: Batch = collate([Example(row, [IGNORE, *row[1:]]) for row in rows])
        self.ids = torch.tensor([rows[1]])

    def go(self) -> None:
        model = self.adapted()
        # Raises if it reads ahead, if the loss is not its own, or if an adapter is never called.
        check_model(lambda f, *args: f(model, *args), model.config, CPU, None, None)
        self.found.row_by_row = pack(model) or ""
        self.found.layers = sorted({path.rpartition(".")[2] for path, _ in lora_layers(model)})
        self.found.left = shares_not_adapted(model)
        self.train(model)
        self.checkpointing()
        self.files(model.eval())
        self.answers()

    def adapted(self, fast: bool = True) -> PreTrainedModel:
        spec = ModelSpec(str(self.base), None, None, LoRAConfig(), False, fast, seed=0)
        return spec.make(torch.float32, CPU, sharded=False)

    def plain(self) -> PreTrainedModel:
        return load_weights(str(self.base), {}, torch.float32, None, CPU)

    def must(self, right: bool, what: str) -> None:
        if not right:
            self.found.faults.append(what)

    def logits(self, model: PreTrainedModel) -> Tensor:
        with torch.no_grad(), unpacked(model):
            return model(input_ids=self.ids, use_cache=False).logits.float()

    def same(self, a: Tensor, b: Tensor) -> bool:
        return relative_difference(a, b) < CLOSE

    def train(self, model: PreTrainedModel) -> None:
        model.train()
        optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=RATE)
        losses = []
        for step in range(STEPS):
            loss = summed_loss(model, self.batch) / len(self.batch.targets)
            loss.backward()
            losses.append(loss.item())
            if step == 0:
                silent = [
                    path
                    for path, layer in lora_layers(model)
                    if layer.lora_B.grad is None or not layer.lora_B.grad.any()
                ]
                self.must(not silent, f"no gradient at {len(silent)} adapters ({silent[:1]})")
            optimizer.step()
            optimizer.zero_grad()
        self.must(
            math.isfinite(losses[-1]) and losses[-1] < 0.98 * losses[0],
            f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}",
        )

    def checkpointing(self) -> None:
        gradients = []
        for saving in (False, True):
            model = self.adapted(fast=not saving).train()
            pack(model)
            try:
                if saving:
                    use_checkpointing(model)
            except ConfigError:
                self.found.lacks.append("no gradient checkpointing")
                return
            torch.manual_seed(0)
            for _, layer in lora_layers(model):
                nn.init.normal_(layer.lora_B, std=0.02)
            summed_loss(model, self.batch).backward()
            gradients.append(
                torch.cat(
                    [
                        p.grad.flatten()
                        for p in trainable_parameters(model).values()
                        if p.grad is not None
                    ]
                )
            )
        self.must(self.same(*gradients), "gradient checkpointing gives other gradients")

    def files(self, model: PreTrainedModel) -> None:
        adapter, merged = self.folder / "adapter", self.folder / "merged"
        tuned = self.logits(model)
        self.must(not self.same(self.logits(self.plain()), tuned), "training changed nothing")
        save_adapter(model, adapter, str(self.base))
        loaded = self.plain()
        load_adapter(loaded, adapter)
        self.must(self.same(self.logits(loaded), tuned), "the saved adapter gives other logits")
        note = describe_misreading(model)
        self.peft(adapter, tuned, note)
        merge(loaded)
        self.must(self.same(self.logits(loaded), tuned), "the merged model gives other logits")
        loaded.save_pretrained(merged)
        again = model_class(loaded.config, "merged").from_pretrained(merged).eval()
        self.must(self.same(self.logits(again), tuned), "the merged folder gives other logits")

    def peft(self, adapter: Path, tuned: Tensor, note: str) -> None:
        try:
            base = model_class(AutoConfig.from_pretrained(self.base), "base")
            plain = base.from_pretrained(self.base)
            PeftModel.from_pretrained(plain, adapter).eval()
            theirs = plain
            right, why = self.same(self.logits(theirs), tuned), "other logits"
        except Exception as error:
            right, why = False, f"{type(error).__name__}: {str(error)[:100]}"
        if note:
            self.must(not right, "the note says that PEFT misreads the adapter, and it does not")
            self.found.lacks.append("PEFT does not read the adapter, only the merged model")
        else:
            self.must(right, f"PEFT cannot use the adapter ({why})")

    def answers(self) -> None:
        model, tokenizer = self.plain(), _tokenizer(self.vocabulary)
        model.generation_config.eos_token_id = None
        sampling = Sampling(max_new_tokens=NEW)
        try:
            alone = [
                next(iter(answers(model, tokenizer, [prompt], sampling)))[1].text
                for prompt in QUESTIONS
            ]
        except GenerationError:
            self.found.lacks.append("transformers does not generate with it")
            return
        together = dict(answers(model, tokenizer, list(QUESTIONS), sampling, batch_size=2))
        self.must(
            [together[index].text for index in range(len(QUESTIONS))] == alone,
            "answers beside others differ from those alone",
        )
        reason = why_alone(model, tokenizer.pad_token_id)
        self.found.one_at_a_time = reason or ""


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose every token is a word of its own."""
    from tokenizers import Tokenizer, models

    words = {f"w{index} ": index for index in range(vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="w0 "))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w13 ")


def every() -> list[str]:
    """The names of all types, those of text first."""
    return [*FAMILIES, *OTHERS, *WRAPPERS, *OTHER_WRAPPERS]


def make_type(name: str) -> PreTrainedModel:
    """The small model of a name."""
    if name in WRAPPERS or name in OTHER_WRAPPERS:
        return make_wrapper(name)
    return make(name, OTHERS[name]) if name in OTHERS else make_family(name)
