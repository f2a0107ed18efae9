"""The profile of a block: every kernel has a kind, and the sums are those of the profiler."""

import pytest
import torch

from irope.bench_profile import OTHER, kind_of, profiled
from irope.bench_rollout import SMALL, random_model, random_rollout


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x128x128", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>", "attention"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_bias_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("void cutlass::device_kernel<at::cuda::detail::enable_3x_kernel_for_sm9x<cutlass::gemm>>", "matrix products"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_bf16bf16", "convolutions"),
        ("triton_red_fused__to_copy_addmm_mul_native_layer_norm_0", "fused elementwise"),
        ("_norm_turn_store", "fused elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<double>>", OTHER),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps>>", OTHER),
    ],
)
def test_kinds(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


def test_a_block() -> None:
    cpu = torch.device("cpu")
    blocks = iter(random_rollout(random_model(SMALL.config, cpu, torch.float32), SMALL, 6, 4))
    next(blocks)
    found = profiled(blocks, cpu)
    kinds = found["kinds"].values()
    assert sum(kind["ms"] for kind in kinds) == pytest.approx(found["busy_ms"])
    assert sum(kind["launches"] for kind in kinds) == found["launches"]
    # Four steps and a context pass of two layers: a product for q, k and v, five more, and those around the layers.
    assert found["kinds"]["matrix products"]["launches"] >= 5 * 2 * 6 - 5
    assert found["kinds"]["attention"]["launches"] > 0
    times = [each["ms"] for each in found["longest"]]
    assert times == sorted(times, reverse=True)
    assert next(blocks).index == 2
