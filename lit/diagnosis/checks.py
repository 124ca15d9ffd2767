"""The checks of a machine, in their order. A new check is a function, and its line here."""

from lit.diagnosis.machine import Check
from lit.diagnosis.numbers import check_dropout, check_loss, check_packing
from lit.diagnosis.runs import check_precisions, check_quantized, check_speed
from lit.messages import tr_mark

CHECKS: dict[str, Check] = {
    tr_mark("speed of 20 steps, and memory"): check_speed,
    tr_mark("packed rows equal single rows"): check_packing,
    tr_mark("loss and gradient equal plain cross entropy"): check_loss,
    tr_mark("dropout equals the plain formula"): check_dropout,
    tr_mark("training in each precision"): check_precisions,
    tr_mark("training with the base in 4 bits"): check_quantized,
}
