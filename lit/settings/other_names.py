"""The names that other trainers and everyday speech have for settings of this project."""

OTHER_NAMES = {
    "model.base": (
        *("model_name_or_path", "pretrained_model_name_or_path", "model_name", "model_id"),
        *("base_model", "model_path", "base_model_name_or_path", "checkpoint_dir"),
    ),
    "model.revision": ("model_revision",),
    "model.lora.r": ("rank", "lora_r", "lora_rank"),
    "model.lora.lora_alpha": ("alpha",),
    "model.lora.lora_dropout": ("dropout",),
    "model.lora.target_modules": (
        *("lora_target_modules", "lora_target", "lora_modules", "targets", "target"),
    ),
    "model.lora.use_rslora": ("rslora",),
    "model.lora.variant": ("use_dora", "dora", "peft_type", "init_lora_weights"),
    "model.lora.neftune_alpha": ("neftune_noise_alpha",),
    "model.quantize": (
        *("load_in_4bit", "load_in_8bit", "quantization", "quantization_bit", "bnb"),
        "bnb_4bit_quant_type",
    ),
    "model.lr": ("learning_rate", "lr_rate", "base_lr", "max_lr"),
    "model.optimizer": ("optim", "optimizer_name"),
    "model.weight_decay": ("decay", "wd"),
    "model.scheduler": ("lr_scheduler_type", "lr_scheduler", "lr_schedule"),
    "model.warmup": ("warmup_steps", "warmup_ratio", "num_warmup_steps", "lr_warmup_steps"),
    "data.path": (
        *("train_file", "train_data", "train_path", "data_path", "data_files", "dataset"),
        *("dataset_name", "dataset_path", "train_dataset"),
    ),
    "data.val_path": (
        *("validation_file", "val_file", "eval_file", "val_data", "eval_dataset", "valid_path"),
    ),
    "data.val_fraction": ("val_set_size", "test_size", "val_split", "eval_split", "val_size"),
    "data.val_every_n_steps": ("eval_steps", "steps_per_eval", "eval_interval", "val_steps"),
    "data.columns": ("column_mapping", "field_mapping"),
    "data.template": ("chat_template", "prompt_template"),
    "data.max_length": (
        *("max_seq_length", "max_seq_len", "model_max_length", "cutoff_len", "max_len"),
        *("seq_length", "seq_len", "sequence_len", "block_size", "context_length"),
    ),
    "data.batch_size": (
        *("per_device_train_batch_size", "per_device_batch_size", "train_batch_size"),
        *("micro_batch_size", "bs"),
    ),
    "data.num_workers": ("dataloader_num_workers", "workers"),
    "trainer.max_epochs": ("num_train_epochs", "num_epochs", "n_epochs", "epochs", "epoch"),
    "trainer.max_steps": ("iters", "max_iters", "total_steps", "num_steps"),
    "trainer.accumulate_grad_batches": (
        *("gradient_accumulation_steps", "gradient_accumulation", "accumulation_steps"),
        *("grad_accumulation_steps", "grad_accum"),
    ),
    "trainer.gradient_clip_val": ("max_grad_norm", "grad_clip", "gradient_clipping", "clip_grad"),
    "trainer.precision": ("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"),
    "trainer.accelerator": ("device", "use_cpu"),
    "trainer.devices": ("gpus", "num_gpus", "n_gpu", "num_processes"),
    "trainer.log_every_n_steps": ("logging_steps", "log_steps", "steps_per_report"),
    "trainer.max_time": ("time_limit",),
    "checkpoint.every_n_train_steps": ("save_steps", "save_every", "save_interval"),
    "checkpoint.save_top_k": ("save_total_limit",),
    "early_stopping.patience": ("early_stopping_patience",),
    "seed_everything": ("seed", "random_seed", "random_state"),
    "output_dir": ("out_dir", "output", "save_dir", "adapter_path", "output_path"),
    "ckpt_path": ("resume_from_checkpoint", "resume", "checkpoint_path"),
    "overwrite": ("overwrite_output_dir",),
}
"""Other names for each setting."""
SETTINGS = {name: setting for setting, names in OTHER_NAMES.items() for name in names}
"""The setting of each other name."""
