"""The faults that the tests must find: silent wrong numbers, and lost files.

The listed tests are the fastest that are known to find a fault.
"""

from tests.mutants.faults import Mutant

LANGUAGE = "tests/runs/test_language.py"
TEMPLATE = "tests/data/test_template.py"
TEXT_TEST, STORE_TEST = "tests/test_translations.py", "tests/data/test_store.py"
REAL_FILES = "tests/data/test_real_files.py"
PLAN, BATCH, SPLIT = (f"tests/data/test_{name}.py" for name in ("plan", "batch", "split"))
LOADER = "tests/data/test_loader.py"
EPOCH_PLANS, STEP_MAP = "tests/data/test_epoch_plans.py", "tests/data/test_step_map.py"
DUPLICATES, TOKENIZE = "tests/data/test_duplicates.py", "tests/data/test_tokenize.py"
LORA = "tests/lora"
CONFIG, DROPOUT, LAYER, FUNCTION, INJECT, OPTIMIZER, QUANTIZED = (
    f"{LORA}/test_{name}.py"
    for name in ("config", "dropout", "layer", "lora_function", "inject", "optimizer", "quantized")
)
ADAPTER, WRITING = (f"{LORA}/storage/test_{name}.py" for name in ("adapter", "files"))
FOREIGN, CONTINUING = (
    f"{LORA}/storage/test_{name}.py" for name in ("foreign_adapters", "continuing")
)
KINDS = f"{LORA}/test_adapter_kinds.py"
NEW_ADAPTER = f"{KINDS}::test_a_new_adapter_changes_no_bit_of_the_logits"
MERGED = f"{KINDS}::test_a_merged_model_is_dense_and_computes_the_same"
SAVED = f"{KINDS}::test_a_saved_adapter_loads_to_the_same_logits_and_saves_to_the_same_bytes"
IN_PEFT = f"{KINDS}::test_peft_computes_the_same_from_a_saved_adapter"
FROM_PEFT = f"{KINDS}::test_an_adapter_that_peft_saved_computes_the_same"
APART = "test_layers_that_peft_trained_apart_load_apart_and_stay_so_when_merged"
TIED = f"{LORA}/test_full_layers.py::{APART}"
ROWS = "tests/lit/answering/test_generate_rows.py"
GENERATION = "tests/lit/answering/test_generation.py"
FILLING = "tests/lit/answering/test_filling.py"
BOTH_ANSWER = "tests/lit/comparison/test_answers_budget.py"
PACK, ANSWERS = "tests/lit/packing/test_pack.py", "tests/families/test_answers.py"
RECURRENCE = "tests/lit/packing/test_recurrence.py"
LOSS, ATTENTION = "tests/lit/model/test_loss.py", "tests/lit/packing/test_attention.py"
MODULE, DATAMODULE = "tests/lit/train/test_module.py", "tests/lit/train/test_datamodule.py"
BEST, STEP_LOSS = (f"tests/lit/train/test_{name}.py" for name in ("best_adapter", "step_loss"))
CONTINUED, MODELFILE = "tests/runs/test_continued_run.py", "tests/lit/exporting/test_modelfile.py"
COMPARE, MERGE = "tests/lit/comparison/test_compare.py", "tests/lit/exporting/test_merge.py"
LOADING, SHARDS = "tests/lit/model/test_loading.py", "tests/lit/exporting/test_shards.py"
CHECKPOINT, MANIFEST = (
    "tests/lit/resume/test_checkpoint.py",
    "tests/lit/resume/test_manifest.py",
)
CONTRACT = "tests/lit/fast_layers/test_contract.py"
PRODUCT_TIMES = "tests/lit/fast_layers/test_product_times.py"
RESUME_STATE, SETTINGS = (
    f"tests/lit/resume/test_{name}.py" for name in ("resume_state", "settings_diff")
)
INTERVAL = "tests/lit/comparison/test_losses.py"
VERDICT = "tests/lit/comparison/test_verdict.py"
COVERAGE, MATCHING = (f"tests/lit/measures/test_{name}.py" for name in ("intervals", "matching"))
USER_FILES = "tests/adversary/test_user_files.py"
FOLDER, OUTPUT, METRICS, COMMAND = (
    f"tests/lit/run/test_{name}.py" for name in ("folder", "output", "metrics", "command")
)
FIT, FAULTS, DDP = (f"tests/runs/test_{name}.py" for name in ("fit", "faults", "ddp"))
SIGNALED = (
    f"{FAULTS}::test_a_signal_exits_with_its_code_and_the_resumed_run_equals_an_uninterrupted_one"
)

DECISION, REPORT, RECORDS = (
    f"tests/lit/searching/test_{name}.py" for name in ("decision", "report", "records")
)
THINKING, VARIABLES = (f"tests/data/test_{name}.py" for name in ("thinking", "template_variables"))

LABELS = [
    Mutant(
        "labels",
        "data/learned_answers.py",
        "same = (some for some in groups if some[0].ids[: len(answer.ids)] == answer.ids)",
        "same = iter(groups)",
        (THINKING,),
    ),
    Mutant(
        "labels",
        "data/templates/thoughts.py",
        'return prompt + closing + answer.lstrip("\\n")',
        'return prompt + answer.lstrip("\\n")',
        (THINKING,),
    ),
    Mutant(
        "labels",
        "data/templates/variables.py",
        "if name not in values:",
        "if True:",
        (VARIABLES,),
    ),
    Mutant(
        "labels",
        "data/learned_answers.py",
        "labels[start:end] = ids[start:end]",
        "labels[start + 1 : end] = ids[start + 1 : end]",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/learned_answers.py",
        "labels[start:end] = ids[start:end]",
        "labels[start : end - 1] = ids[start : end - 1]",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/learned_answers.py",
        "labels[start:end] = ids[start:end]",
        "labels[start - 1 : end] = ids[start - 1 : end]",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/learned_answers.py",
        "labels[start:end] = ids[start:end]",
        "labels[:end] = ids[:end]",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/encoder.py",
        "return Learned(answer.turn, ids[: stop + 1], len(prompt))",
        "return Learned(answer.turn, ids, len(prompt))",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/encoder.py",
        "prompt_length = next(i for i, label in enumerate(labels) if label != IGNORE)",
        "prompt_length = len(ids)",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/templates/writing.py",
        'return [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]',
        'return [i for i, turn in enumerate(messages) if turn.role == "assistant"]',
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/templates/thoughts.py",
        "if written.startswith(prompt):",
        "if len(written) >= len(prompt):",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/encoder.py",
        "self.special.discard(tokenizer.unk_token_id)",
        "pass",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/formats/turns.py",
        "return train is not False and weight != 0",
        "return train is not False",
        (REAL_FILES,),
    ),
    Mutant(
        "labels",
        "data/learned_answers.py",
        "if whole[: len(prompt)] == prompt:",
        "if prompt:",
        (REAL_FILES,),
    ),
    Mutant(
        "labels",
        "data/templates/writing.py",
        "rest = without",
        "pass",
        (REAL_FILES,),
    ),
    Mutant(
        "labels",
        "data/templates/guard.py",
        "ids += self._encode_piece(piece, as_text=place % 2 == 1, follows=follows)",
        "ids += self._encode_piece(piece, as_text=False, follows=follows)",
        (TEMPLATE,),
    ),
    Mutant(
        "labels",
        "data/template.py",
        'tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.get_chat_template())',
        "pass",
        (TEMPLATE,),
    ),
]

PLANS = [
    Mutant(
        "plan",
        "data/planning/plan.py",
        "order = np.append(order, full + last)",
        "order = order.astype(np.int64)",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/plan.py",
        "return int(self.labels[micro_step // self.accumulate])",
        "return int(self.labels[max(0, micro_step - 1) // self.accumulate])",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/plan.py",
        "labels = _sums(label_counts[rows], step_starts)",
        "labels = _sums(label_counts, step_starts)",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/micro_batches.py",
        "random = np.random.default_rng([seed, epoch]) if seed is not None else None",
        "random = np.random.default_rng([seed, 0]) if seed is not None else None",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/plan.py",
        "i = micro_step * self.world_size + rank",
        "i = rank * self.micro_steps + micro_step",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/plan.py",
        "starts = starts[min(skip, len(starts) - 1) :]",
        "starts = starts[min(skip + 1, len(starts) - 1) :]",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/plan.py",
        "batch_ids = skip + np.arange(len(starts) - 1)",
        "batch_ids = np.arange(len(starts) - 1)",
        (LOADER,),
    ),
    Mutant(
        "plan",
        "data/planning/micro_batches.py",
        "end_from = np.minimum(end_from, np.arange(len(rows)) + batch_size)",
        "end_from = np.minimum(end_from, np.arange(len(rows)) + batch_size + 1)",
        (PLAN,),
    ),
    Mutant(
        "plan",
        "data/planning/loader.py",
        "rng_key = mix_seed(self.epoch, self.plan.batch_id(self.rank, micro_step))",
        "rng_key = mix_seed(self.epoch, micro_step)",
        (LOADER,),
    ),
    Mutant(
        "plan",
        "data/planning/loader.py",
        "rng_key = mix_seed(self.epoch, self.plan.batch_id(self.rank, micro_step))",
        "rng_key = mix_seed(0, self.plan.batch_id(self.rank, micro_step))",
        (LOADER,),
    ),
    Mutant(
        "plan",
        "data/planning/loader.py",
        "return collate([shortest._replace(labels=[IGNORE] * len(shortest.ids))], labels)",
        "return collate([shortest], labels)",
        (LOADER,),
    ),
    Mutant(
        "plan",
        "data/planning/batch.py",
        "position_ids=torch.cat([torch.arange(start, end) for _, start, end in segments])[None],",
        "position_ids=torch.arange(sum(lengths))[None],",
        (BATCH,),
    ),
]

LOSSES = [
    Mutant(
        "loss",
        "lit/train/schedule.py",
        "return (step + 1) / warmup",
        "return step / warmup",
        ("tests/lit/train/test_schedule.py",),
    ),
    Mutant(
        "loss",
        "lit/train/module.py",
        "return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size",
        "return loss * self.trainer.world_size",
        (MODULE,),
    ),
    Mutant(
        "loss",
        "lit/train/module.py",
        "return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size",
        "return loss * self.trainer.accumulate_grad_batches",
        (STEP_LOSS,),
    ),
    Mutant(
        "loss",
        "lit/train/module.py",
        "loss = self.call(summed_loss, batch) / labels",
        "loss = self.call(summed_loss, batch) / (batch.labels >= 0).sum()",
        (MODULE,),
    ),
    Mutant(
        "loss",
        "lit/train/module.py",
        "self._val_loss.add(self.call(summed_loss, batch), batch.label_count)",
        "self._val_loss.add(self.call(summed_loss, batch), batch.labels.numel())",
        (f"{COMPARE}::test_the_measured_loss_equals_the_one_of_training",),
    ),
    Mutant(
        "loss",
        "lit/train/mean_loss.py",
        "if trainer.world_size > 1:",
        "if trainer.world_size > 2:",
        ("tests/lit/train/test_mean_loss.py",),
    ),
    Mutant(
        "loss",
        "lit/train/step_loss.py",
        "return batch.step_labels",
        "return batch.labels.numel()",
        (MODULE,),
    ),
    Mutant(
        "loss",
        "lit/train/step_loss.py",
        "self._loss, self._labels = None, 0",
        "self._labels = 0",
        (STEP_LOSS,),
    ),
    Mutant(
        "loss",
        "lit/train/step_loss.py",
        "if not abs(labels - self.planned) <= 1e-6 * self.planned:",
        "if labels == 0 and self.planned == 0:",
        (STEP_LOSS,),
    ),
    Mutant(
        "loss",
        "lit/model/loss.py",
        'reduction = "sum" if hidden.dtype == torch.float32 else "none"',
        'reduction = "mean" if hidden.dtype == torch.float32 else "none"',
        (LOSS,),
    ),
    Mutant(
        "loss",
        "data/planning/batch.py",
        "predicting.append(where + at - 1 if at > segments[rest].start else before)",
        "predicting.append(where + at)",
        (LOSS,),
    ),
    Mutant(
        "loss",
        "lit/model/loss.py",
        "softcap = next(filter(None, (getattr(config, name, None) for name in SOFTCAPS)), None)",
        "softcap = None",
        (LOSS,),
    ),
    Mutant(
        "loss",
        "lit/model/loss.py",
        "return factor * divisor if class_name in MULTIPLIED else factor / divisor",
        "return factor * divisor",
        (LOSS,),
    ),
    Mutant(
        "loss",
        "lit/model/start_checks.py",
        "call(check_causal, states, changed)",
        "call(check_causal, states, states)",
        ("tests/families/test_wrappers.py",),
    ),
    Mutant(
        "loss",
        "lit/packing/probe.py",
        "changed[-1] = row[0]",
        "changed[-1] = row[-1]",
        ("tests/families/test_wrappers.py",),
    ),
    Mutant(
        "loss",
        "lit/model/loss.py",
        "MAX_LOSS_DIFFERENCE = 0.02",
        "MAX_LOSS_DIFFERENCE = 20",
        (LOSS,),
    ),
]

LAYERS = [
    Mutant(
        "layer",
        "lora/config.py",
        "return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)",
        "return self.lora_alpha * self.r",
        (CONFIG,),
    ),
    Mutant(
        "layer",
        "lora/config.py",
        "return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)",
        "return self.lora_alpha / self.r",
        (CONFIG,),
    ),
    Mutant(
        "layer",
        "lora/config.py",
        "alpha = next(alphas, self.lora_alpha)",
        "alpha = self.lora_alpha",
        (CONFIG,),
    ),
    Mutant(
        "layer",
        "lora/layer.py",
        "return dense_weight(self.base) + self.config.scale * (B @ A).detach()",
        "return dense_weight(self.base) + (B @ A).detach()",
        (LAYER,),
    ),
    Mutant(
        "layer",
        "lora/lora_function.py",
        "dropped, scale = mask.mul_(dropped), scale / kept",
        "dropped = mask.mul_(dropped)",
        (FUNCTION,),
    ),
    Mutant(
        "layer",
        "lora/dropout.py",
        "return mask.mul_(x) / kept",
        "return mask.mul_(x)",
        (LAYER,),
    ),
    Mutant(
        "layer",
        "lora/dropout.py",
        "return self.by_device[device].manual_seed(seed)",
        "return self.by_device[device]",
        (DROPOUT,),
    ),
    Mutant(
        "layer",
        "lora/dropout.py",
        "return x.bitwise_xor_((x >> shift).bitwise_and_(2 ** (32 - shift) - 1))",
        "return x.bitwise_xor_(x >> shift)",
        (DROPOUT,),
    ),
    Mutant(
        "layer",
        "lora/lora_function.py",
        "h = B.to(ctx.dtype).T @ rows.T * scale",
        "h = B.to(ctx.dtype).T @ rows.T",
        (FUNCTION,),
    ),
    Mutant(
        "layer",
        "lora/lora_function.py",
        "grad_B = (z @ rows).T.to(B.dtype)",
        "grad_B = (z @ rows).T.to(B.dtype) * ctx.scale",
        (FUNCTION,),
    ),
    Mutant(
        "layer",
        "lora/lora_function.py",
        "grad_x = (grad_x if mask is None else grad_x.mul_(mask)).to(x.dtype)",
        "grad_x = grad_x.to(x.dtype)",
        (FUNCTION,),
    ),
    Mutant(
        "layer",
        "lora/variants/dora.py",
        "return self.gain().detach()[:, None] * super().merged_weight()",
        "return super().merged_weight()",
        (MERGED,),
    ),
    Mutant(
        "layer",
        "lora/variants/dora.py",
        "product = y if bias is None else y - bias.to(y.dtype)",
        "product = y",
        (LAYER,),
    ),
    Mutant(
        "layer",
        "lora/variants/pissa.py",
        "return A, torch.cat([self.lora_B - self.start_B, self.start_B], dim=1)",
        "return A, torch.cat([self.lora_B, self.start_B], dim=1)",
        (NEW_ADAPTER,),
    ),
    Mutant(
        "layer",
        "lora/injection.py",
        "DISABLED.set(DISABLED.get() - own)",
        "pass",
        (INJECT,),
    ),
    Mutant(
        "layer",
        "lora/injection.py",
        "replace_module(model, path, module.original())",
        'replace_module(model, path, module.original() if hasattr(module, "lora_A") else module)',
        (CONTRACT,),
    ),
    Mutant(
        "layer",
        "lora/base.py",
        "return weight.float() * (scale.float() / 127)[:, None]",
        "return weight.float() * (scale.float() / 128)[:, None]",
        (QUANTIZED,),
    ),
    Mutant(
        "layer",
        "lora/optimizer.py",
        '"lr": lr * loraplus_lr_ratio if fast else lr,',
        '"lr": lr,',
        (OPTIMIZER,),
    ),
    Mutant(
        "layer",
        "lora/optimizer.py",
        '"weight_decay": 0.0 if undecayed else weight_decay,',
        '"weight_decay": weight_decay,',
        (OPTIMIZER,),
    ),
    Mutant(
        "layer",
        "lit/model/embedding_noise.py",
        "if not embedding.training:",
        "if not embedding:",
        ("tests/lit/model/test_embedding_noise.py",),
    ),
]

ADAPTERS = [
    Mutant(
        "adapter",
        "lora/families/experts.py",
        "return rows, B.view(B.shape[0], -1, experts).permute(2, 0, 1)",
        "return rows, B.view(B.shape[0], experts, -1).permute(1, 0, 2)",
        (IN_PEFT, FROM_PEFT),
    ),
    Mutant(
        "adapter",
        "lora/families/experts.py",
        'return {name: path + ".base_layer" * (last - i) for i, name in enumerate(names)}',
        'return {name: path + ".base_layer" * i for i, name in enumerate(names)}',
        (IN_PEFT, FROM_PEFT),
    ),
    Mutant(
        "adapter",
        "lora/variants/experts.py",
        "outputs = outputs * weights.reshape(-1)[order, None]",
        "outputs = outputs * weights.reshape(-1)[:, None]",
        (NEW_ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/variants/experts.py",
        "change = update.config.scale * (B @ A)",
        "change = B @ A",
        (MERGED,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_tensors.py",
        'PREFIX = "base_model.model."',
        'PREFIX = "base_model."',
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_tensors.py",
        '"magnitude": "lora_magnitude_vector",',
        '"magnitude": "lora_magnitude",',
        (IN_PEFT,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_tensors.py",
        "A = nn.functional.pad(A.view(experts, -1, A.shape[1]), (0, 0, 0, missing)).flatten(0, 1)",
        "A = nn.functional.pad(A.view(experts, -1, A.shape[1]), (0, 0, missing, 0)).flatten(0, 1)",
        (SAVED,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_tensors.py",
        "B = B * (layers[path].config.scale / (lora_alpha / r))",
        "B = B * 1.0",
        (SAVED,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_tensors.py",
        "if not (saved - expected).norm() <= tolerance * expected.norm():",
        "if False:",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_format.py",
        '"use_dora": isinstance(first, DoRALinear),',
        '"use_dora": False,',
        (IN_PEFT,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_format.py",
        '"fan_in_fan_out": any(is_transposed(layer.base) for layer in layers.values()),',
        '"fan_in_fan_out": False,',
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_format.py",
        '"use_rslora": value_of(peft, "use_rslora", (bool,)),',
        '"use_rslora": False,',
        (FROM_PEFT,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_format.py",
        '"alpha_pattern": pattern_of(peft, "alpha_pattern", NUMBER),',
        '"alpha_pattern": {},',
        (FROM_PEFT,),
    ),
    Mutant(
        "adapter",
        "lora/storage/peft_format.py",
        "if key in peft and not any(_same(peft[key], value) for value in unused):",
        "if key not in peft and unused == ():",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/layer_names.py",
        "next(suffix for suffix in path_suffixes(path) if suffix not in others)",
        'path.rpartition(".")[2]',
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/adapter.py",
        'raise AdapterError(tr("{key} holds NaN or infinity; nothing was saved", key=key))',
        "pass",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/tensor_file.py",
        'raise AdapterError(tr("{path}: {key} holds NaN or infinity", path=path, key=key))',
        "pass",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/tensor_file.py",
        "if path.stat().st_size > header > 2**16 + HEADER_PER_TENSOR * expected:",
        "if False:",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/mismatch.py",
        "if (actual := stored[key]) != shape:",
        "if len(actual := stored[key]) != len(shape):",
        (ADAPTER,),
    ),
    Mutant(
        "adapter",
        "lora/storage/adapter.py",
        "return config if same else replace(config, ensure_weight_tying=False)",
        "return config",
        (TIED,),
    ),
    Mutant(
        "adapter",
        "lit/exporting/merging.py",
        "if not difference < allowed:",
        "if False:",
        (MERGE,),
    ),
    Mutant(
        "adapter",
        "lit/model/tuned.py",
        "if own.is_file():",
        "if not own:",
        ("tests/lit/model/test_tuned.py",),
    ),
    Mutant(
        "adapter",
        "lit/model/loading.py",
        'if missing := info["missing_keys"]:',
        "if missing := set():",
        (LOADING,),
    ),
    Mutant(
        "adapter",
        "lit/exporting/shards.py",
        "if stored.shape != parameter.shape or not stored.to(parameter).equal(parameter):",
        "if stored.shape != parameter.shape:",
        (SHARDS,),
    ),
    Mutant(
        "adapter",
        "lit/exporting/shards.py",
        "layer.to(finer)",
        "pass",
        (SHARDS,),
    ),
]

RESUMES = [
    Mutant(
        "resume",
        "lit/resume/resume_state.py",
        '"library": library_of(pl_module),',
        '"library": "",',
        (RESUME_STATE,),
    ),
    Mutant(
        "resume",
        "lit/fitting/training.py",
        "self.model.spec = replace(self.model.spec, library=start.library)",
        "pass",
        (f"{FIT}::test_a_resumed_run_computes_with_the_library_of_its_checkpoint",),
    ),
    Mutant(
        "resume",
        "lit/fast_layers/kept_times.py",
        "os.link(new, path)",
        "os.replace(new, path)",
        (PRODUCT_TIMES,),
    ),
    Mutant(
        "resume",
        "lit/fast_layers/product_times.py",
        "if len(shortest) == len(products) and time.perf_counter() > begin + limit:",
        "if time.perf_counter() > begin + limit:",
        (PRODUCT_TIMES,),
    ),
    Mutant(
        "resume",
        "lit/resume/resume_state.py",
        '"record": self.record if self.recorded_step == step else step_record(trainer),',
        '"record": {},',
        (RESUME_STATE,),
    ),
    Mutant(
        "resume",
        "lit/resume/resume_state.py",
        "if self.resume_point.validation_due:",
        "if False:",
        (RESUME_STATE,),
    ),
    Mutant(
        "resume",
        "lit/resume/resume_state.py",
        '"step_map": [tuple(segment) for segment in self.data.plans.step_map.segments],',
        '"step_map": [],',
        (RESUME_STATE,),
    ),
    Mutant(
        "resume",
        "lit/resume/resume_state.py",
        "micro_step = self.data.plans.micro_step(epoch, self.resume_point.step)",
        "micro_step = done",
        (RESUME_STATE,),
    ),
    Mutant(
        "resume",
        "data/planning/step_map.py",
        "skipped = part.skipped + (step - part.step) * segments[-1].per_step",
        "skipped = (step - part.step) * segments[-1].per_step",
        (STEP_MAP,),
    ),
    Mutant(
        "resume",
        "data/planning/step_map.py",
        "return last.step + last.steps",
        "return last.step + last.steps - 1",
        (STEP_MAP,),
    ),
    Mutant(
        "resume",
        "data/planning/epoch_plans.py",
        "skip=self.step_map.of_epoch(epoch).skipped,",
        "skip=0,",
        (EPOCH_PLANS,),
    ),
    Mutant(
        "resume",
        "data/planning/epoch_plans.py",
        "return max(step - part.step, 0) * planned.accumulate",
        "return max(step - part.step, 0)",
        (EPOCH_PLANS,),
    ),
    Mutant(
        "resume",
        "lit/resume/manifest.py",
        "if digests and _sha256(path) not in digests:",
        "if digests and not _sha256(path):",
        (MANIFEST,),
    ),
    Mutant(
        "resume",
        "lit/resume/manifest.py",
        "digests[path.name] = [*old, digest]",
        "digests[path.name] = [digest]",
        (MANIFEST,),
    ),
    Mutant(
        "resume",
        "lit/resume/settings_diff.py",
        "return [name for name in shared if _value(old[name]) != _value(new[name])]",
        "return [name for name in shared if name not in old]",
        (SETTINGS,),
    ),
    Mutant(
        "resume",
        "lit/resume/settings_diff.py",
        "for column in (store.content_hashes, store.lengths, store.label_counts):",
        "for column in (store.lengths, store.label_counts):",
        (SETTINGS,),
    ),
    Mutant(
        "resume",
        "lit/resume/resume_point.py",
        "newest = max(complete, key=lambda resume_point: resume_point.step)",
        "newest = min(complete, key=lambda resume_point: resume_point.step)",
        ("tests/lit/resume/test_resume_point.py",),
    ),
    Mutant(
        "resume",
        "lit/resume/stopping.py",
        "trainer.save_checkpoint(self.folder.last)",
        "pass",
        ("tests/lit/resume/test_stopping.py",),
    ),
    Mutant(
        "resume",
        "lit/train/module.py",
        "torch.manual_seed(mix_seed(self.seed, batch.rng_key))",
        "pass",
        (f"{FIT}::test_a_resumed_run_equals_one_that_never_stopped",),
    ),
    Mutant(
        "resume",
        "lit/train/best_adapter.py",
        'STATE = ("base_loss", "loss", "matching", "step", "validated", "tensors")',
        'STATE = ("base_loss", "matching", "step", "validated", "tensors")',
        (BEST,),
    ),
    Mutant(
        "resume",
        "lit/train/best_adapter.py",
        "if loss < math.inf and (-matching, loss) < (-self.matching, self.loss):",
        "if not loss < self.loss or self.loss == math.inf:",
        (BEST,),
    ),
    Mutant(
        "resume",
        "lit/train/best_adapter.py",
        "pl_module.load_state_dict(now)",
        "pass",
        (BEST,),
    ),
    Mutant(
        "resume",
        "lit/run/metrics.py",
        'rows = [old for old in rows if int(old["step"]) < self.done + bool(old["val/loss"])]',
        'rows = [old for old in rows if int(old["step"]) < self.done]',
        (METRICS,),
    ),
]

SPLITS = [
    Mutant(
        "split",
        "data/splitting/split.py",
        "in_val = np.isin(group_of_row, order[held_out])",
        "in_val = np.isin(rows, order[held_out])",
        (SPLIT,),
    ),
    Mutant(
        "split",
        "data/splitting/split.py",
        "return rows[~in_val], rows[in_val]",
        "return rows, rows[in_val]",
        (SPLIT,),
    ),
    Mutant(
        "split",
        "data/splitting/split.py",
        "order = np.random.default_rng(seed).permutation(len(unique))",
        "order = np.random.default_rng(0).permutation(len(unique))",
        (SPLIT,),
    ),
    Mutant(
        "split",
        "data/splitting/split.py",
        "groups = joined_groups(hashes, near[0]) if near else hashes",
        "groups = hashes",
        (DATAMODULE,),
    ),
    Mutant(
        "split",
        "data/splitting/split.py",
        "val_rows = np.delete(val_rows, overlap.left_out)",
        "pass",
        (DATAMODULE,),
    ),
    Mutant(
        "split",
        "data/splitting/duplicates.py",
        "left_out = np.isin(val, train) | find_repeats(val)",
        "left_out = np.isin(val, train)",
        (DUPLICATES,),
    ),
    Mutant(
        "split",
        "data/splitting/duplicates.py",
        "left_out = np.isin(val, train) | find_repeats(val)",
        "left_out = find_repeats(val)",
        (DUPLICATES,),
    ),
    Mutant(
        "split",
        "data/splitting/near_duplicates.py",
        "if not groups.joined(row, other) and sketches[other].jaccard(sketch) >= threshold:",
        "if False:",
        (DUPLICATES,),
    ),
    Mutant(
        "split",
        "data/splitting/near_duplicates.py",
        "if not groups.joined(row, other) and sketches[other].jaccard(sketch) >= threshold:",
        "if not groups.joined(row, other):",
        (DUPLICATES,),
    ),
    Mutant(
        "split",
        "data/records.py",
        "return _hash(fold(first).split())",
        "return _hash(first.split())",
        (TOKENIZE,),
    ),
    Mutant(
        "split",
        "data/records.py",
        'return _hash([word for role, text in texts for word in (f"\\0{role}", *text.split())])',
        "return _hash([word for role, text in texts for word in text.split()])",
        (TOKENIZE,),
    ),
]

INTERVALS = [
    Mutant(
        "interval",
        "lit/measures/intervals.py",
        "low, high = (mean + sign * student_t(rows - 1) * error for sign in (-1, 1))",
        "low, high = (mean + sign * Z * error for sign in (-1, 1))",
        (COVERAGE,),
    ),
    Mutant(
        "interval",
        "lit/measures/intervals.py",
        "low[part] = np.fmin(low[part], mean[part] - highest * error[part])",
        "low[part] = np.fmax(low[part], mean[part] - highest * error[part])",
        (COVERAGE,),
    ),
    Mutant(
        "interval",
        "lit/measures/intervals.py",
        "rest = difference - mean[:, None] * weights",
        "rest = difference - (difference / weights).mean(1)[:, None] * weights",
        (COVERAGE,),
    ),
    Mutant(
        "interval",
        "lit/measures/losses.py",
        "return paired_interval(self.tuned - self.base, self.labels)",
        "return paired_interval(self.base - self.tuned, self.labels)",
        (INTERVAL,),
    ),
    Mutant(
        "interval",
        "lit/measures/losses.py",
        "return paired_interval(self.tuned - self.base, self.labels)",
        "return paired_interval((self.tuned - self.base) / self.labels)",
        (INTERVAL,),
    ),
    Mutant(
        "interval",
        "lit/measures/losses.py",
        "return float(getattr(self, which).sum() / self.labels.sum())",
        "return float(self.rows(which).mean())",
        (INTERVAL,),
    ),
    Mutant(
        "interval",
        "lit/measures/losses.py",
        "sums[which][rows] = _sums(tokens, labels[rows])",
        "sums[which][: len(rows)] = _sums(tokens, labels[rows])",
        (INTERVAL,),
    ),
    Mutant(
        "interval",
        "lit/comparison/result.py",
        "improved_rows=int((losses.tuned < losses.base).sum()),",
        "improved_rows=int((losses.tuned > losses.base).sum()),",
        (f"{COMPARE}::test_each_answer_has_the_losses_of_its_own_row",),
    ),
    Mutant(
        "interval",
        "lit/comparison/comparison.py",
        "return [(float(base[row]), float(tuned[row])) for row in rows]",
        "return [(float(base[i]), float(tuned[i])) for i, _ in enumerate(rows)]",
        (f"{COMPARE}::test_each_answer_has_the_losses_of_its_own_row",),
    ),
    Mutant(
        "interval",
        "lit/measures/measured.py",
        "if not Interval(self.low, self.high).excludes_zero:",
        "if False:",
        (VERDICT,),
    ),
    Mutant(
        "interval",
        "lit/measures/measured.py",
        'return Outcome.BETTER if (self.high < 0) == (self.better == "lower") else Outcome.WORSE',
        "return Outcome.BETTER if self.high < 0 else Outcome.WORSE",
        (VERDICT,),
    ),
    Mutant(
        "interval",
        "lit/measures/matching.py",
        "scores = np.stack([means[row, text] - means[EMPTY, text] for text in texts])",
        "scores = np.stack([means[row, text] for text in texts])",
        (MATCHING,),
    ),
    Mutant(
        "interval",
        "lit/measures/matching.py",
        "SIMILAR: [_first_others(answers, i, -alike[i]) for i in range(len(cases))],",
        "SIMILAR: [_first_others(answers, i, alike[i]) for i in range(len(cases))],",
        (MATCHING,),
    ),
    Mutant(
        "interval",
        "lit/answering/generation.py",
        'with adapters_disabled(model) if which == "base" else nullcontext():',
        'with adapters_disabled(model) if which == "tuned" else nullcontext():',
        (f"{COMPARE}::test_losses_equal_plain_cross_entropy_row_by_row",),
    ),
    Mutant(
        "interval",
        "lit/answering/generation.py",
        "tokens.append(stop_token(tokenizer))",
        "pass",
        (GENERATION,),
    ),
    Mutant(
        "interval",
        "lit/answering/sampling.py",
        "return torch.Generator(device).manual_seed(mix_seed(sampling.seed, *prompt))",
        "return torch.Generator(device).manual_seed(mix_seed(0, *prompt))",
        (f"{COMPARE}::test_the_same_seed_gives_the_same_answer",),
    ),
    Mutant(
        "interval",
        "lit/comparison/verdict.py",
        'tone: Tone = "warn" if rule.tone == "good" else rule.tone',
        "tone: Tone = rule.tone",
        (VERDICT,),
    ),
]

SERVING = [
    Mutant(
        "serving",
        "lit/answering/batch.py",
        "return token, rounding == 0 or (can_batch(sampling) and _leads(scaled + noise, error))",
        "return token, rounding == 0 or _leads(scaled + noise, error)",
        (ROWS,),
    ),
    Mutant(
        "serving",
        "lit/serving/engine/worker.py",
        "if job.model != batch[0].model or not all(can_batch(job.sampling) for job in jobs):",
        "if job.model != batch[0].model:",
        ("tests/lit/serving/test_batching.py",),
    ),
    Mutant(
        "interval",
        "lit/answering/generation.py",
        "batch_size = batch_size if can_batch(sampling) else 1",
        "pass",
        ("tests/lit/answering/test_generation.py",),
    ),
    Mutant(
        "serving",
        "lit/answering/batch.py",
        "return token, rounding == 0 or (can_batch(sampling) and _leads(scaled + noise, error))",
        "return token, rounding == 0 or can_batch(sampling)",
        (ROWS,),
    ),
    Mutant(
        "serving",
        "lit/answering/batch.py",
        "return token, rounding == 0 or _leads(logits, 2 * rounding)",
        "return token, True",
        (ROWS,),
    ),
    Mutant(
        "serving",
        "lit/answering/batch.py",
        "seeded_generator(sampling, prompt, device)",
        "torch.Generator(device).manual_seed(sampling.seed)",
        (ROWS,),
    ),
    Mutant(
        "serving",
        "lora/adapter_set.py",
        "replace_module(self.model, path, layer.original())",
        "pass",
        ("tests/lora/test_adapter_set.py",),
    ),
    Mutant(
        "serving",
        "lit/serving/engine/answer_text.py",
        "self._show(text[: len(text) - held])",
        "self._show(text)",
        ("tests/lit/serving/test_answer_text.py",),
    ),
    Mutant(
        "serving",
        "lit/serving/guard.py",
        "if origin is not None and urlsplit(origin).netloc.lower() != host.lower():",
        "if False:",
        ("tests/lit/serving/test_interface.py",),
    ),
]

ATTENTIONS = [
    Mutant(
        "attention",
        "lit/packing/transformers_internals.py",
        "module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=True",
        "module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=False",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/attention.py",
        "split = [part.split(row_lengths, dim=2) for part in (query, key, value)]",
        "split = [part.split(sum(row_lengths), dim=2) for part in (query, key, value)]",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/attention.py",
        "return (distance >= 0) & (distance < (window or keys))",
        "return (distance >= 0) & (distance <= (window or keys))",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/attention.py",
        "near = None if window is None or k.shape[2] <= window else window",
        "near = None",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/hidden_states.py",
        "position_ids=position_ids,",
        "position_ids=torch.arange(input_ids.shape[1])[None],",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/attention.py",
        "scores = softcap * torch.tanh(scores / softcap)",
        "scores = scores * 1.0",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/attention.py",
        "scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)",
        "scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5",
        (ATTENTION,),
    ),
    Mutant(
        "attention",
        "lit/packing/recurrence.py",
        "return value[:, row]",
        "return value",
        (RECURRENCE,),
    ),
    Mutant(
        "attention",
        "lit/packing/recurrence.py",
        "self.original().training = mode",
        "pass",
        (RECURRENCE,),
    ),
    Mutant(
        "attention",
        "lit/packing/hidden_states.py",
        "if layer := mixes_rows(model):",
        "if layer := None:",
        (RECURRENCE,),
    ),
    Mutant(
        "attention",
        "lit/packing/pack.py",
        "if not change <= tolerance(model, packed):",
        "if False:",
        (PACK,),
    ),
    Mutant(
        "attention",
        "lit/packing/pack.py",
        "if isfinite(change) and not rows_are_isolated(model, batch, packed):",
        "if False:",
        (PACK,),
    ),
    Mutant(
        "attention",
        "lit/packing/isolation.py",
        "return not _others(tainted, first, last).isnan().any()",
        "return True",
        (PACK,),
    ),
    Mutant(
        "attention",
        "lit/packing/reach.py",
        "if seen != told:",
        "if False:",
        (PACK,),
    ),
    Mutant(
        "attention",
        "lit/packing/rotary.py",
        "return limit is None or max(lengths) <= limit or len(lengths) == 1",
        "return True",
        (PACK,),
    ),
    Mutant(
        "attention",
        "lit/answering/batching.py",
        "together = [i for i in order if limit is None or lengths[i] + max_new_tokens <= limit]",
        "together = order",
        (ANSWERS,),
    ),
    Mutant(
        "attention",
        "lit/answering/batching.py",
        "mask[0, : len(padding)] = 0",
        "padding = padding[:0]",
        (ANSWERS,),
    ),
    Mutant(
        "attention",
        "lit/answering/filling.py",
        "return not isfinite(change) or change <= 2 * tolerance(model, expected)",
        "return True",
        (FILLING,),
    ),
    Mutant(
        "attention",
        "lit/answering/rows.py",
        "for each, value in (([p.ids for p in parts], self.pad), ([p.mask for p in parts], 0))",
        "for each, value in (([p.ids for p in parts], self.pad), ([p.mask for p in parts], 1))",
        (FILLING,),
    ),
    Mutant(
        "attention",
        "lit/answering/rows.py",
        "self.room = []",
        "pass",
        (FILLING,),
    ),
    Mutant(
        "interval",
        "lit/comparison/answers.py",
        "tuned.add(prompts[len(tuned.answers) : len(base.answers)])",
        "tuned.add(prompts[: len(base.answers)])",
        (BOTH_ANSWER,),
    ),
]

FILES = [
    Mutant("files", "lora/storage/files.py", "new.chmod(mode)", "pass", (WRITING,)),
    Mutant("files", "lora/storage/files.py", "os.fsync(file.fileno())", "pass", (CHECKPOINT,)),
    Mutant("files", "lora/storage/files.py", "new.unlink(missing_ok=True)", "pass", (WRITING,)),
    Mutant(
        "files",
        "lit/resume/checkpoint.py",
        'with manifest.replacing(path) as new, new.open("wb") as file:',
        'with path.open("wb") as file:',
        (CHECKPOINT,),
    ),
    Mutant(
        "files",
        "lit/resume/checkpoint.py",
        "loaded = torch.load(path, map_location=map_location, weights_only=True)",
        "loaded = torch.load(path, map_location=map_location, weights_only=False)",
        (CHECKPOINT,),
    ),
    Mutant(
        "files",
        "lit/run/output.py",
        'raise ConfigError(tr("{path} already exists: choose another path, or remove it", '
        "path=path))",
        "pass",
        (OUTPUT,),
    ),
    Mutant(
        "files",
        "lit/run/folder.py",
        "if not overwrite:",
        "if resume and overwrite:",
        (FOLDER,),
    ),
    Mutant(
        "files",
        "lit/run/output.py",
        "temporary = path.name.startswith(PREFIX) and path.name != LOCK",
        'temporary = path.name.startswith(".")',
        (FOLDER,),
    ),
    Mutant(
        "files",
        "lit/run/output.py",
        "if not (temporary and same) or path.is_symlink() or (path.is_dir() and is_locked(path)):",
        "if not (temporary and same) or path.is_symlink():",
        (USER_FILES,),
    ),
    Mutant(
        "files",
        "lit/run/ownership.py",
        "yield path, any(_matches(relative, pattern) for pattern in patterns)",
        "yield path, True",
        (USER_FILES,),
    ),
    Mutant("files", "lit/run/folder.py", "if not resume:", "if not resume or True:", (FOLDER,)),
    Mutant(
        "files",
        "lit/run/command.py",
        'return 1, f"{place}{error.strerror or _first_line(error)}"',
        'return 0, f"{place}{error.strerror or _first_line(error)}"',
        (COMMAND,),
    ),
    Mutant(
        "files",
        "lit/run/command.py",
        "return 2, name_arguments(str(error), names)",
        "return 1, name_arguments(str(error), names)",
        (COMMAND,),
    ),
    Mutant(
        "files",
        "lit/settings/language.py",
        "os.environ[VARIABLES[0]] = language",
        "pass",
        (f"{LANGUAGE}::test_the_language_is_that_of_the_flag_or_the_locale",),
    ),
    Mutant(
        "files",
        "lit/messages.py",
        "found = None if _ENGLISH.get() else gettext.find(DOMAIN, LOCALE)",
        "found = gettext.find(DOMAIN, LOCALE)",
        (f"{LANGUAGE}::test_a_comparison_is_in_russian_and_its_json_and_card_in_english",),
    ),
    Mutant(
        "serving",
        "lit/messages.py",
        "switches = (_ENGLISH, data.messages.ENGLISH, lora.messages.ENGLISH)",
        "switches = (_ENGLISH, lora.messages.ENGLISH)",
        ("tests/lit/serving/test_interface.py::test_what_is_refused_is_in_english",),
    ),
    Mutant(
        "files",
        "lit/train/step_guard.py",
        "if math.isfinite(loss) and math.isfinite(norm):",
        "if math.isfinite(loss):",
        (MODULE,),
    ),
]

GOING_ON = [
    Mutant(
        "going on",
        "lora/storage/mismatch.py",
        "if shape is None or len(shape) <= dimension or shape[dimension] == tokens:",
        "if True:",
        (FOREIGN,),
    ),
    Mutant(
        "going on",
        "lora/storage/mismatch.py",
        "if found := sorted({path for name in names for path in index.get(name, ())}):",
        "if found := []:",
        (FOREIGN,),
    ),
    Mutant(
        "going on",
        "lora/full_layers.py",
        "if self.apart:",
        "if False:",
        (TIED,),
    ),
    Mutant(
        "going on",
        "lora/storage/continuing.py",
        "if value != actual",
        "if False",
        (CONTINUING,),
    ),
    Mutant(
        "going on",
        "lora/storage/continuing.py",
        "if asked.keys() != actual.keys():",
        "if False:",
        (CONTINUING,),
    ),
    Mutant(
        "going on",
        "lora/storage/continuing.py",
        "return load_adapter(model, directory, given.lora_dropout)",
        "return load_adapter(model, directory)",
        (CONTINUING,),
    ),
    Mutant(
        "going on",
        "lit/run/folder.py",
        'if setting == "model.adapter" and own.is_relative_to(read):',
        'if setting == "model.adapter" and own == read:',
        (CONTINUED,),
    ),
    Mutant(
        "going on",
        "lit/exporting/modelfile.py",
        'LAST = "eq (len (slice $.Messages $i)) 1"',
        'LAST = "eq $i 0"',
        (MODELFILE,),
    ),
    Mutant(
        "going on",
        "lit/exporting/turns.py",
        "_render(conversation, tokenizer) != turns.render(conversation)",
        "turns.render(conversation) is None",
        (MODELFILE,),
    ),
]

TEXTS = [
    Mutant(
        "texts",
        "data/tokenize.py",
        "language(),  # of the reasons why rows are left out",
        "",
        (STORE_TEST,),
    ),
    Mutant(
        "texts",
        "data/report/row_check.py",
        "unknown = Counter(x.file for x in report.issues(BAD) if tr(UNKNOWN_KEYS) in x.reason)",
        "unknown = Counter(x.file for x in report.issues(BAD) if UNKNOWN_KEYS in x.reason)",
        (STORE_TEST,),
    ),
    Mutant(
        "texts",
        "data/messages.py",
        "return gettext.translation(DOMAIN, LOCALE, [language()], fallback=True)",
        "return gettext.translation(DOMAIN, LOCALE, fallback=True)",
        (TEXT_TEST,),
    ),
    Mutant(
        "texts",
        "data/messages.py",
        "return _read_catalog(ENGLISH.get(), *map(os.environ.get, VARIABLES))",
        "return _read_catalog(ENGLISH.get())",
        (TEXT_TEST,),
    ),
    Mutant(
        "texts",
        "lora/config.py",
        'raise ConfigError(tr("`target_modules` is empty; name layers, or use all-linear"))',
        'raise ConfigError("`target_modules` is empty; name layers, or use all-linear")',
        (TEXT_TEST,),
    ),
]

BEGINNINGS, SHARING = "tests/data/test_beginnings.py", "tests/lit/packing/test_sharing.py"
SHARED = [
    Mutant("sharing", file, line, replacement, (test,))
    for file, line, replacement, test in (
        (
            "data/beginnings/find.py",
            "return np.maximum(np.minimum(first, starts[1:] - 1) - starts[:-1], 0)",
            "return np.maximum(np.minimum(first, starts[1:]) - starts[:-1], 0)",
            BEGINNINGS,
        ),
        (
            "data/beginnings/find.py",
            "first = labeled[np.searchsorted(labeled, starts[:-1])]",
            "first = starts[1:]",
            BEGINNINGS,
        ),
        (
            "data/beginnings/find.py",
            "ends_here = np.isin(group, group[1:][divides]) & (depth - end >= MIN_SHARED)",
            "ends_here = np.isin(group, group[1:][divides])",
            BEGINNINGS,
        ),
        (
            "data/beginnings/find.py",
            "end = np.where(ends_here, depth, end)",
            "end = np.where(ends_here, depth - depth % MIN_SHARED, end)",
            BEGINNINGS,
        ),
        (
            "data/beginnings/beginnings.py",
            "least[at] = np.minimum(table[first[at] + 1], table[second[at] - 2**k + 1])",
            "least[at] = np.minimum(table[first[at] + 1], table[first[at] + 1])",
            BEGINNINGS,
        ),
        (
            "data/beginnings/beginnings.py",
            "return max(before, after)",
            "return before",
            BEGINNINGS,
        ),
        (
            "data/beginnings/segments.py",
            "work += [(*part, end, path) for part in pairwise(cuts)]",
            "work += [(*part, start, path) for part in pairwise(cuts)]",
            BEGINNINGS,
        ),
        (
            "data/planning/batch.py",
            "before = starts[path[-2] + 1] - 1 if len(path) > 1 else -1",
            "before = starts[path[-1]] - 1",
            BEGINNINGS,
        ),
        (
            "data/planning/batch.py",
            "if not same or example.labels[start:end] != [IGNORE] * (end - start):",
            "if not same:",
            BEGINNINGS,
        ),
        (
            "data/planning/micro_batches.py",
            "added = int(lengths[row]) - batch.shared(row)",
            "added = int(lengths[row])",
            BEGINNINGS,
        ),
        (
            "data/planning/micro_batches.py",
            "tokens, added = 0, int(lengths[row])",
            "tokens = 0",
            BEGINNINGS,
        ),
        (
            "data/planning/plan.py",
            "tokens -= beginnings.saved(rows, starts)",
            "tokens -= 0",
            BEGINNINGS,
        ),
        (
            "lit/packing/attention.py",
            "distance = position[keys - queries :, None] - position[None, :]",
            "distance = position[:queries, None] - position[None, :]",
            SHARING,
        ),
        (
            "lit/packing/attention.py",
            "key = queries, keys, window, like.dtype, like.device",
            "key = queries, keys, like.dtype, like.device",
            "tests/lit/packing/test_sharing.py",
        ),
        (
            "lit/packing/hidden_states.py",
            "return Seen(tuple(paths), batch.seen, batch.cu_seen, max(batch.row_lengths))",
            "return Seen(tuple(paths), batch.seen, batch.cu_seen, max(batch.lengths))",
            SHARING,
        ),
        (
            "lit/packing/hidden_states.py",
            "return model in sharing and attention_name(model) == PACKED",
            "return attention_name(model) == PACKED",
            SHARING,
        ),
        (
            "lit/packing/isolation.py",
            "segment = batch.paths[row][-1] if batch.paths else row",
            "segment = row",
            SHARING,
        ),
        (
            "lit/model/loss.py",
            "batch = as_computed(model, batch)",
            "batch = batch",
            SHARING,
        ),
    )
]

OUTCOME = "lit/searching/outcome"
DECISIONS = [
    Mutant(
        "decisions",
        f"{OUTCOME}/ties.py",
        "return [trial for trial in measured if trial.full_schedule] or measured",
        "return measured",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        "lit/measures/differences.py",
        "return student_t(rows - 1, limit) / student_t(rows - 1)",
        "return 1.0",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/ties.py",
        "return min(tied, key=lambda one: (*one.cost, one.loss))",
        "return min(tied, key=lambda one: one.loss)",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/ties.py",
        'return trial.state == "finished" and sums is not None and all(map(math.isfinite, sums))',
        "return sums is not None and all(map(math.isfinite, sums))",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/facts.py",
        "gain_report = _reported(search, *reported)",
        "gain_report = gain_choose",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/facts.py",
        "taken = own if own and outcome(gain_report) is Outcome.WORSE else preferred",
        "taken = preferred",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/facts.py",
        "return Difference(report.value - choose.value, low, high)",
        "return Difference(choose.value - report.value, low, high)",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/facts.py",
        "return Seeds.SMALL if high is not None and high < 0 else Seeds.MATTER",
        "return Seeds.SMALL",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/ties.py",
        "apart = apart.widened(spread.reach(counts[n], counts[0], counts))",
        "pass",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        "lit/measures/differences.py",
        "+ of_seeds.mean(0)",
        "+ 0 * of_seeds.mean(0)",
        ("tests/lit/measures/test_seed_spread.py",),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/facts.py",
        "if not seeds:",
        "if True:",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        "lit/measures/differences.py",
        "return float(np.quantile(largest / spread, 0.95))",
        "return float(np.quantile(largest, 0.95))",
        ("tests/lit/measures/test_seed_spread.py",),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/decision.py",
        "if min(choose, report) >= MIN_ROWS:",
        "if max(choose, report) >= MIN_ROWS:",
        (DECISION,),
    ),
    Mutant(
        "decisions",
        "lit/searching/records.py",
        "if kind is float and type(value) in (int, float) and math.isfinite(value):",
        "if kind is float and type(value) in (int, float):",
        (RECORDS,),
    ),
    Mutant(
        "decisions",
        f"{OUTCOME}/report.py",
        "return None if isinstance(value, float) and not math.isfinite(value) else value",
        "return value",
        (REPORT,),
    ),
]

LEDGER, SCHEDULE, PLANNER, SEARCH = (
    *(f"tests/lit/searching/test_{name}.py" for name in ("ledger", "search_schedule", "planner")),
    "tests/runs/test_search.py",
)
SEARCHES = [
    Mutant(
        "searches",
        "lit/searching/trials/storage.py",
        'file.truncate(content.rfind(b"\\n") + 1)',
        "file.truncate(len(content))",
        (LEDGER,),
    ),
    Mutant(
        "searches",
        "lit/searching/trials/ledger.py",
        'if other.user_attrs["slot"] == number and (_record(other) or self.owner.lives(other)):',
        "if False:",
        (LEDGER,),
    ),
    Mutant(
        "searches",
        "lit/searching/schedule.py",
        'reserved = self.shares.runs * self.costs.run if job.kind == "try" else 0.0',
        "reserved = 0.0",
        (SCHEDULE,),
    ),
    Mutant(
        "searches",
        "lit/searching/planner.py",
        "if settings not in known:",
        "if True:",
        (PLANNER,),
    ),
    Mutant(
        "searches",
        "lit/searching/workbench.py",
        "eject(self.base).eval()",
        "self.base.eval()",
        (f"{SEARCH}::test_a_search_tries_the_configs_own_settings_first_and_ends_with_whole_runs",),
    ),
]

MUTANTS = [
    *(LABELS + PLANS + LOSSES + LAYERS + ADAPTERS),
    *(
        RESUMES
        + SPLITS
        + INTERVALS
        + SERVING
        + ATTENTIONS
        + FILES
        + GOING_ON
        + TEXTS
        + SHARED
        + DECISIONS
        + SEARCHES
    ),
]
