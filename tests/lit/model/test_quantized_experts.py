"""What ``model.quantize`` leaves dense in a mixture."""

from lit.model.quantization import describe_experts
from tests.conftest import make_model


def test_the_share_of_experts_that_stays_dense_is_said() -> None:
    model = make_model("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    named = [(name, p.numel()) for name, p in model.named_parameters()]
    size = sum(count for name, count in named if ".experts." in name)
    share = size / sum(count for _, count in named)
    assert describe_experts(model) == f"experts: {share:.0%} of the parameters stay in float32"
    assert 0.1 < share < 0.9
    assert describe_experts(make_model()) == ""
