"""What ``--help`` says of settings whose own docstring says it for another reader."""

from lit.messages import tr_mark

TEXTS = {
    "checkpoint.best_by": tr_mark(
        "loss, or matching, which data.val_matching measures: the best adapter"
    ),
    "config": tr_mark("a YAML file of settings; several flags: the last one wins"),
    "seed_everything": tr_mark("the seed of everything that is random"),
    "model.lora.target_modules": tr_mark(
        "projections, all-linear, attention, mlp, or last names of layers"
    ),
    "model.lora.exclude_modules": tr_mark("last names of layers that target_modules leaves out"),
    "model.lora.variant": tr_mark("lora, dora or pissa"),
    "model.lora.rank_pattern": tr_mark("ranks of single layers, by the end of their path"),
    "data.path": tr_mark("a JSONL, JSON, CSV, TSV, XLSX or Parquet file, a folder, hub:OWNER/NAME"),
    "data.val_path": tr_mark("the same, to validate on; null: a share of data.path is held out"),
    "data.val_fraction": tr_mark("the share of data.path that is held out"),
    "data.report_fraction": tr_mark(
        "share of the held-out rows that is kept apart, for lit.search"
    ),
    "data.val_every_n_steps": tr_mark("optimizer steps between validations; null: one each epoch"),
    "data.encoding": tr_mark("encoding of text files; null: UTF-8; auto: another one if certain"),
    "data.template": tr_mark("auto, chat, plain, or a Jinja file"),
    "data.template_kwargs": tr_mark("values of the template's variables: {enable_thinking: false}"),
    "data.near_duplicates": tr_mark(
        "share of text above which rows are near-duplicates, such as 0.8"
    ),
    "model.fast_layers": tr_mark(
        "auto: faster layers with the same result; off: transformers' own"
    ),
    "model.on_nonfinite": tr_mark("where a loss or gradient is not finite: stop, or skip the step"),
    "early_stopping.patience": tr_mark("validations without progress before stopping; null: never"),
    "trainer.accelerator": tr_mark("auto, cpu, cuda, mps"),
    "trainer.strategy": tr_mark("auto, ddp, or a way to shard the base (docs/scale.md)"),
    "trainer.devices": tr_mark("how many devices, or which: auto, 2, or 0,1"),
    "trainer.num_nodes": tr_mark("how many machines"),
    "trainer.precision": tr_mark(
        "auto, 32-true, bf16-frozen (on a CPU), 16-mixed, bf16-mixed, bf16-true"
    ),
    "trainer.callbacks": tr_mark("Lightning callbacks to add, as classes in the YAML file"),
    "trainer.max_epochs": tr_mark("how often each row is used"),
    "trainer.min_epochs": tr_mark("epochs before early stopping may end the run"),
    "trainer.max_steps": tr_mark("optimizer steps; -1: as many as the epochs have"),
    "trainer.min_steps": tr_mark("optimizer steps before early stopping may end the run"),
    "trainer.max_time": tr_mark("when to end the run, as DD:HH:MM:SS"),
    "trainer.limit_train_batches": tr_mark("micro-batches of an epoch, for a trial"),
    "trainer.val_check_interval": tr_mark(
        "micro-batches between validations; below 1: share of an epoch"
    ),
    "trainer.check_val_every_n_epoch": tr_mark(
        "epochs between validations; null: count across epochs"
    ),
    "trainer.log_every_n_steps": tr_mark("optimizer steps between two logged rows"),
    "trainer.enable_progress_bar": tr_mark("false: no bar and no progress lines"),
    "trainer.accumulate_grad_batches": tr_mark(
        "micro-batches of an optimizer step, on each device"
    ),
    "trainer.gradient_clip_val": tr_mark(
        "the longest gradient; longer ones are scaled down; 0: never"
    ),
    "trainer.gradient_clip_algorithm": tr_mark("norm, or value"),
    "trainer.deterministic": tr_mark("true: refuse operations whose result may differ by chance"),
    "trainer.benchmark": tr_mark("true: let cuDNN try kernels for each new shape"),
    "trainer.profiler": tr_mark("simple, advanced or pytorch: where the time goes"),
    "trainer.detect_anomaly": tr_mark("true: find the operation that makes a gradient NaN (slow)"),
    "checkpoint.filename": tr_mark("name of the files"),
    "checkpoint.verbose": tr_mark("print where each checkpoint is saved"),
    "checkpoint.save_last": tr_mark("keep last.ckpt, from which a run resumes"),
    "checkpoint.save_top_k": tr_mark("how many of the newest checkpoints stay; -1: all"),
    "checkpoint.save_on_exception": tr_mark("also save when an error ends the run"),
    "checkpoint.every_n_train_steps": tr_mark("optimizer steps between checkpoints"),
    "checkpoint.train_time_interval": tr_mark("time between checkpoints, instead of steps"),
    "checkpoint.every_n_epochs": tr_mark("epochs between checkpoints, instead of steps"),
    "checkpoint.save_on_train_epoch_end": tr_mark(
        "save at the end of an epoch, not after its validation"
    ),
}

OF_DOCSTRINGS = (
    tr_mark("compute a beginning that rows of a micro-batch share once"),
    tr_mark("make micro-batches of rows that share a long beginning"),
    tr_mark("the base model: a hub name, or a folder"),
    tr_mark("rank of the update: rows of A, columns of B"),
    tr_mark("numerator of the scale"),
    tr_mark("probability that an input element of the update is zeroed in training"),
    tr_mark("scale by lora_alpha / sqrt(r) (arXiv:2312.03732) instead of lora_alpha / r"),
    tr_mark("alphas of single layers, by the end of their path"),
    tr_mark("numbers of the blocks to adapt, from 0"),
    tr_mark("last names of layers to train in full: embeddings or the output head"),
    tr_mark("train layers with tied weights as the one matrix that they are"),
    tr_mark("learning rate of B divided by that of A (LoRA+, arXiv:2402.12354)"),
    tr_mark("noise on the input embeddings in training (arXiv:2310.05914)"),
    tr_mark("a branch, tag or commit of the hub"),
    tr_mark("load the base's linear layers in 4 bits (nf4, fp4) or 8 bits (int8)"),
    tr_mark("adamw, one of bitsandbytes' 8-bit AdamW optimizers, or sgd"),
    tr_mark("the highest learning rate"),
    tr_mark("weight decay of A and B"),
    tr_mark("how the learning rate falls after the warm-up"),
    tr_mark("optimizer steps of rising learning rate"),
    tr_mark("compute activations twice and keep few: less memory, a third slower"),
    tr_mark("the folder of an adapter to go on from"),
    tr_mark("the file's name for each of our fields, such as {prompt: question_text}"),
    tr_mark("separator of .csv files"),
    tr_mark("tokens that a row may have"),
    tr_mark("rows of a micro-batch"),
    tr_mark("tokens of a micro-batch"),
    tr_mark("for longer rows: middle (cut the prompt's middle), drop, error"),
    tr_mark("error, or skip and count"),
    tr_mark("answers of a conversation to learn: all, or the last"),
    tr_mark("for a validation row that is also a training row: leave_out or keep"),
    tr_mark("make micro-batches of rows of similar length"),
    tr_mark("log at each validation how many answers are tied to their questions"),
    tr_mark("processes that prepare batches"),
    tr_mark("the run's folder"),
    tr_mark("resume from a checkpoint: last, or a file"),
    tr_mark("replace the run in output_dir"),
    tr_mark("train even if the check says that the run cannot work"),
    tr_mark("a smaller decrease does not count as progress"),
)
"""What ``--help`` takes from docstrings: written here too, since only literals are translated."""
