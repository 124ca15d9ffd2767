"""Strings of two or more words in the product that are not translated, with the reason.

Everything else of two or more words is a text for people and goes through ``tr``; see
tests/test_texts.py.
"""

REGEX, CODE = "a regular expression", "code or a template"
LIBRARY = "what a library says, in English"
CARD = "a part of a model card, which is in English for the hub"
KEY = "a key that is stored or compared"
PROGRAM = "a mistake of a program that uses this package; no command shows it"
NAME = "a name of something outside"
TYPED = "a command as it is typed"
API = "an answer of the HTTP interface, which programs read and log"

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
    "lit/comparison/report.py": {"{}\n\n{}\n\nMeasured": CARD},
    "lit/comparison/verdict.py": {"not shown": KEY},
    "lit/comparison/votes.py": {"lit-lora votes 1": "the mark of a file's format"},
    "lit/diagnosis/sample.py": {"{% for": CODE, "the bed of a printer": "a sample"},
    "lit/distributed/sharding.py": {"A frozen base, sharded": PROGRAM},
    "lit/embedded.py": {"---\nlicense": CARD},
    "lit/exporting/modelfile.py": {
        **dict.fromkeys(("eq (len", "{}{{ ", "{{ if"), CODE),
        **dict.fromkeys(("FROM ", "ADAPTER ", "TEMPLATE ", "SYSTEM ", "PARAMETER ", "# The"), CODE),
    },
    "lit/exporting/probe.py": {"What comes out": "a sample that a model reads"},
    "lit/fast_layers/fused_norm.py": {"{}, eps={}": CODE},
    "lit/fast_layers/table.py": dict.fromkeys(("gated MLP", "RMS norm", "oneDNN linear"), KEY),
    "lit/exporting/peft_folder.py": {"{} --adapter {}": TYPED},
    "lit/fitting/summary.py": dict.fromkeys(
        ("       python -m", "       tensorboard", "       {} --adapter"), TYPED
    ),
    "lit/model/loading.py": {"automatic conversion": LIBRARY},
    "lit/model/placement.py": {"the model": KEY},
    "lit/model/preparation.py": {"gated MLP": KEY},
    "lit/packing/reach.py": {"packed, probed": KEY},
    "lit/preflight/coverage.py": {"output head": KEY},
    "lit/preflight/meta_step.py": {"gated MLP": KEY},
    "lit/report/page.py": {"bold green": "a style of rich"},
    "lit/report/pictures.py": dict.fromkeys(("DejaVu Sans Mono", "offset points"), NAME),
    "lit/resume/settings_diff.py": dict.fromkeys(("{} (rows)", "{} rows, digest"), KEY),
    "lit/run/card.py": {"": CARD},
    "lit/run/command.py": {
        **dict.fromkeys(("null byte", "null character"), LIBRARY),
        "{NAME: VALUE}": CODE,
    },
    "lit/run/console.py": {".*": REGEX},
    "lit/run/lightning_internals.py": {"only known": PROGRAM},
    "lit/run/progress.py": {"{task.": CODE},
    "lit/searching/outcome/reasons.py": {"stopped early": KEY},
    "lit/searching/outcome/rules.py": dict.fromkeys(
        ("worse than base", "not confirmed", "no report", "only own", "own tied", "own failed"), KEY
    ),
    "lit/searching/outcome/decision.py": {"too few": KEY},
    "lit/searching/records.py": {"stopped early": KEY},
    "lit/settings/command_line.py": dict.fromkeys(
        ("unrecognized arguments", "Parser key", "arguments are required"), LIBRARY
    ),
    "lit/settings/trainer_settings.py": {"lit.settings.hardware": PROGRAM},
    "lit/serve.py": dict.fromkeys((" -H 'Auth", "curl "), TYPED),
    "lit/serving/app.py": {"": API},
    "lit/serving/bodies.py": {"data: ": CODE},
    "lit/serving/engine/job.py": {"": API},
    "lit/serving/engine/messages.py": {"": API},
    "lit/serving/engine/metrics.py": {"": API},
    "lit/serving/engine/models.py": {"there is no model": API},
    "lit/serving/engine/request.py": {"": API},
    "lit/serving/engine/served_model.py": {"": API},
    "lit/serving/engine/worker.py": dict.fromkeys(
        ("the model failed", "the answer", "the server is stopping"), API
    ),
    "lit/serving/guard.py": {"": API},
    "lit/serving/page.py": {"default-src": CODE},
    "lit/train/datamodule.py": dict.fromkeys(("setup has not", "the data module has no"), PROGRAM),
    "lit/train/longest_batch.py": dict.fromkeys(
        (
            *("can't allocate", "could not create a", "CUDA out of", "CUDA error", "MPS backend"),
            "Invalid buffer",
        ),
        LIBRARY,
    ),
    "lit/train/module.py": {"lit-lora epoch": KEY, "configure_model has not": PROGRAM},
}
"""By file and by the beginnings of the strings; an empty beginning is every string of a file."""
