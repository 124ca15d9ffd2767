"""Strings of two or more words in the product that are not translated, with the reason.

Everything else of two or more words is a text for people and goes through ``tr``; see
tests/test_translations.py.
"""

REGEX, CODE = "a regular expression", "code or a template"
LIBRARY = "what a library says, in English"
COMMAND = "a command line"
CARD, API = "a model card, which is in English", "an answer to a program, in English"
DOCTOR = "the page of lit.doctor, which is sent to the project, in English"
KEY = "a key, which is compared or stored"

NOT_FOR_PEOPLE: dict[str, dict[str, str]] = {
    "lora/layer.py": {"disabled adapters": "the name of a context variable"},
    "lora/storage/files.py": {r"([^:]+) \(os error": REGEX},
    "data/formats/rows.py": {"Hi? Hello.": "a sample row"},
    "data/formats/values.py": {"{}: null": "a value of JSON"},
    "data/readers/json_file.py": dict.fromkeys(("Extra data", "Expecting "), LIBRARY),
    "data/readers/table.py": {"column {}": "the key of a column without a name"},
    "data/report/row_issue.py": {"too long": KEY},
    "data/sandbox.py": {"Be brief.": "a sample", "\nimport": CODE},
    "data/template.py": {"{% for": CODE},
    "data/templates/variables.py": {
        **dict.fromkeys((r"\{% if", r"(?:\{\{ bos"), REGEX),
        "{% if": CODE,
    },
    "lit/serve.py": dict.fromkeys((" -H ", "curl "), COMMAND),
    "lit/check.py": {"python -m lit.check": COMMAND},
    "lit/comparison/report.py": {"{}\n\n{}\n\nMeasured": CARD},
    "lit/comparison/verdict.py": {"not shown": "a kind of verdict"},
    "lit/comparison/votes.py": {"lit-lora votes": "the mark of a file"},
    "lit/device/device.py": dict.fromkeys(
        ("{} (compute", "Apple GPU", "model name"), "the name of a device"
    ),
    "lit/diagnosis/numbers.py": dict.fromkeys(
        ("{} of the", "dropout of", "{} differs", "not packed", "loss {}", "{} in {}"), DOCTOR
    ),
    "lit/diagnosis/page.py": dict.fromkeys(
        ("# lit-lora on", "Failed: ", "Every check", "{} Written by", "{} GB"), DOCTOR
    ),
    "lit/diagnosis/runs.py": dict.fromkeys(
        ("{} million", "nf4 {}", "bitsandbytes is", "{}: the validation", "{} not on"), DOCTOR
    ),
    "lit/diagnosis/sample.py": {"{% for": CODE, "the bed of": "a sample"},
    "lit/distributed/sharding.py": {"A frozen base": "an entry of Lightning's registry"},
    "lit/embedded.py": {"---\n": CARD},
    "lit/exporting/modelfile.py": dict.fromkeys(
        (
            "eq (",
            "# The chat",
            "{}{{",
            "FROM",
            "TEMPLATE",
            "PARAMETER",
            "{{ if",
            "ADAPTER",
            "SYSTEM",
        ),
        "a part of a Modelfile",
    ),
    "lit/exporting/peft_folder.py": {"{} --adapter": "a text with its command"},
    "lit/exporting/probe.py": {"What comes out": "a sample"},
    "lit/fast_layers/fused_norm.py": {"{}, eps": CODE},
    "lit/fast_layers/table.py": dict.fromkeys(("gated MLP", "RMS norm", "oneDNN"), KEY),
    "lit/fitting/summary.py": dict.fromkeys(("       python", "       tens", "       {}"), COMMAND),
    "lit/model/loading.py": {"automatic conversion": "what transformers says"},
    "lit/model/placement.py": {"the model": KEY},
    "lit/model/preparation.py": {"gated MLP": KEY},
    "lit/packing/reach.py": {"packed, probed": KEY},
    "lit/preflight/coverage.py": {"output head": KEY},
    "lit/preflight/meta_step.py": {"gated MLP": KEY},
    "lit/report/page.py": {"bold green": "a style"},
    "lit/report/pictures.py": dict.fromkeys(("DejaVu", "offset points"), "a name of matplotlib's"),
    "lit/resume/settings_diff.py": dict.fromkeys(("{} rows", "{} (rows)"), "kept in checkpoints"),
    "lit/run/card.py": dict.fromkeys(
        ("---\n", "\n## ", "\n<!-- ", "Training went", "before this", " with {}"), CARD
    ),
    "lit/run/command.py": {
        " in {}:{}": CODE,
        "{NAME: VALUE}": CODE,
        "null ": "what Python says",
    },
    "lit/run/console.py": {".*": REGEX},
    "lit/run/lightning_internals.py": {"only known": "of an assertion"},
    "lit/run/progress.py": {"{task.": CODE},
    "lit/search.py": dict.fromkeys(("python -m lit.search", "next   python"), COMMAND),
    "lit/searching/outcome/coordinates.py": {"upper center": "a name of matplotlib's"},
    "lit/searching/outcome/decision.py": {"too few": KEY},
    "lit/searching/outcome/loss_axes.py": {"upper center": "a name of matplotlib's"},
    "lit/searching/outcome/reasons.py": {"stopped early": KEY},
    "lit/searching/outcome/rules.py": dict.fromkeys(
        ("worse", "not c", "no r", "only", "own ", "better once"), KEY
    ),
    "lit/searching/outcome/texts.py": {"stopped early": KEY},
    "lit/searching/progress.py": {"stopped early": KEY},
    "lit/searching/records.py": dict.fromkeys(("stopped early", "the base", "trial {}"), KEY),
    "lit/searching/results.py": {"lit.search {}": "a mark", "python -m": COMMAND},
    "lit/searching/search.py": {"stopped early": KEY},
    "lit/searching/trials/limits.py": {"stopped early": KEY},
    "lit/searching/space_file.py": {"check_keys": "of an assertion", "{low": CODE},
    "lit/searching/trials/ledger.py": {"record {}": KEY},
    "lit/serving/app.py": dict.fromkeys(("{} here", "wins and", "the server"), API),
    "lit/serving/bodies.py": {"data: ": API},
    "lit/serving/engine/job.py": dict.fromkeys(("the server", "{} requests"), API),
    "lit/serving/engine/messages.py": dict.fromkeys(("{} must", "messages", "{} is", "{}."), API),
    "lit/serving/engine/metrics.py": dict.fromkeys(
        ("Requests", "Tokens", "Seconds", "Batches", "Answers", "# "), "metrics, for a program"
    ),
    "lit/serving/engine/models.py": {"there is no model": API},
    "lit/serving/engine/request.py": dict.fromkeys(
        (
            *("the name", "a text", "the body", "model is", "n is", "an object", "{} is", "0, or"),
            *("above 0", "a whole", "1 or", "prompt must", "nested", "true or"),
        ),
        API,
    ),
    "lit/serving/engine/served_model.py": dict.fromkeys(("{} has", "the prompt"), API),
    "lit/serving/engine/worker.py": dict.fromkeys(("the model", "the answer", "the server"), API),
    "lit/serving/guard.py": dict.fromkeys(("the ", "send the"), API),
    "lit/serving/page.py": {"default-src": CODE},
    "lit/settings/arguments.py": {
        "python -m lit.fit": COMMAND,
        **dict.fromkeys(("The run", "Resume", "Replace", "Train"), "in OF_DOCSTRINGS, for --help"),
    },
    "lit/settings/command_line.py": dict.fromkeys(("unrec", "Parser", "arguments are"), REGEX),
    "lit/settings/help_page.py": {"({} {} items)": "a default value"},
    "lit/settings/trainer_settings.py": {"lit.settings": "of an assertion"},
    "lit/train/datamodule.py": dict.fromkeys(("setup has", "the data module"), "for a programmer"),
    "lit/train/longest_batch.py": dict.fromkeys(
        ("can't", "could not", "CUDA", "MPS", "Invalid"), "what torch says"
    ),
    "lit/train/module.py": {"lit-lora epoch": KEY, "configure_model": "for a programmer"},
    "lit/train/sample_answers.py": {"answer {}": "a tag of TensorBoard"},
}
"""By file and by the beginnings of the strings."""
