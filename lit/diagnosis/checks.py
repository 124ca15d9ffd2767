"""The checks of a machine, in their order. A new check is a function, and its line here."""

from lit.diagnosis.machine import Check
from lit.diagnosis.numbers import check_dropout, check_loss, check_packing
from lit.diagnosis.runs import check_precisions, check_quantized, check_speed

CHECKS: dict[str, Check] = {
    "speed of 20 steps, and memory": check_speed,
    "packed rows equal single rows": check_packing,
    "loss and gradient equal plain cross entropy": check_loss,
    "dropout equals the plain formula": check_dropout,
    "training in each precision": check_precisions,
    "training with the base in 4 bits": check_quantized,
}
