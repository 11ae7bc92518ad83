"""What operations move, told from programs as text, and from one that this machine compiles."""

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.ops import conv
from cnn_jax.programs.hlo import read
from cnn_jax.programs.traffic import Moved, array_bytes, repeated, traffic

# a TPU's: S(1) is its vector memory; layouts of tiles, as the compiler prints them
PROGRAM = """
%inner (param_0.1: bf16[8,4,4,2]) -> bf16[8,2,2,2] {
  %param_0.1 = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  ROOT %slice.1 = bf16[8,2,2,2]{3,0,2,1:T(8,128)(2,1)} slice(%param_0.1), slice={[0:8:1], [0:4:2]}
}

%strided (param_0.2: bf16[8,4,4,2], param_1.2: bf16[1,1,2,4]) -> bf16[8,2,2,4] {
  %param_0.2 = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %param_1.2 = bf16[1,1,2,4]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %fusion.9 = bf16[8,2,2,2]{3,0,2,1:T(8,128)(2,1)} fusion(%param_0.2), kind=kLoop, calls=%inner
  ROOT %conv.1 = bf16[8,2,2,4]{3,0,2,1:T(8,128)(2,1)} convolution(%fusion.9, %param_1.2), \
window={size=1x1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(step)/jvp(shortcut)/conv"}
}

%gradient (param_0.3: bf16[8,4,4,2], param_1.3: bf16[8,4,4,2]) -> (f32[2], bf16[1,1,2,2]) {
  %param_0.3 = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %param_1.3 = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)S(1)} parameter(1)
  %conv.2 = bf16[1,1,2,2]{3,2,1,0} convolution(%param_0.3, %param_1.3), window={size=4x4}, \
dim_labels=f01b_i01o->01bf, metadata={op_name="jit(step)/transpose(jvp(conv1))/conv"}
  %reduce.1 = f32[2]{0} reduce(%conv.2, %zero), dimensions={0,1,2}, to_apply=%add
  ROOT %tuple.1 = (f32[2]{0}, bf16[1,1,2,2]{3,2,1,0}) tuple(%reduce.1, %conv.2)
}

%body (carry: (s32[], f32[16])) -> (s32[], f32[16]) {
  %carry = (s32[], f32[16]{0}) parameter(0)
  %item = f32[16]{0} get-tuple-element(%carry), index=1
  %twice = f32[16]{0} add(%item, %item)
  ROOT %next = (s32[], f32[16]{0}) tuple(%count, %twice)
}

ENTRY %main (x: bf16[8,4,4,2], k: bf16[1,1,2,4]) -> bf16[8,2,2,4] {
  %x = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %k = bf16[1,1,2,4]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[1,1,2,4]{3,2,1,0:T(8,128)(2,1)S(1)}, bf16[1,1,2,4]{3,2,1,0:T(8,128)(2,1)}, \
u32[]{:S(2)}) copy-start(%k)
  %copy-done = bf16[1,1,2,4]{3,2,1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %slice-start = ((bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)}), \
bf16[8,1,4,2]{3,0,2,1:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:8], [0:1]}
  %slice-done = bf16[8,1,4,2]{3,0,2,1:T(8,128)(2,1)S(1)} slice-done(%slice-start)
  %vector = bf16[8,4,4,2]{3,0,2,1:T(8,128)(2,1)S(1)} custom-call(%slice-done), \
custom_call_target="ConcatBitcast"
  %fusion.1 = bf16[8,2,2,4]{3,0,2,1:T(8,128)(2,1)} fusion(%x, %copy-done), kind=kOutput, \
calls=%strided
  %fusion.2 = (f32[2]{0}, bf16[1,1,2,2]{3,2,1,0}) fusion(%x, %vector), kind=kOutput, \
calls=%gradient
  %while.1 = (s32[], f32[16]{0}) while(%start), condition=%less, body=%body
  %all-reduce = f32[2]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %done = bf16[8,2,2,4]{3,0,2,1:T(8,128)(2,1)} bitcast(%fusion.1)
}

%less (carry.1: (s32[], f32[16])) -> pred[] {
  %carry.1 = (s32[], f32[16]{0}) parameter(0)
}
""".replace("\\\n", "")

X, KERNEL, SMALL, SLICE = 8 * 4 * 4 * 2 * 2, 2 * 4 * 2, 2 * 4 + 2 * 2 * 2, 8 * 4 * 2 * 2


def test_an_operation_reads_its_operands_once_and_of_a_slice_what_it_is_of():
    moved = traffic(read(PROGRAM))
    output = 8 * 2 * 2 * 4 * 2
    assert moved["convolutions"] == Moved(X / 4 + output, X / 4 + output + KERNEL)
    assert moved["filter gradients"] == Moved(X + SMALL, 2 * X + SMALL)
    assert moved["collectives"] == Moved(X + 8, X + 8)


def test_what_is_copied_is_read_in_one_memory_and_written_in_the_other():
    assert traffic(read(PROGRAM))["copies"] == Moved(KERNEL + SLICE, 2 * (KERNEL + SLICE))


def test_the_body_of_a_loop_that_only_the_data_ends_counts_once():
    assert traffic(read(PROGRAM))["elementwise"] == Moved(3 * 64, 3 * 64)
    assert repeated(read(PROGRAM)) == (0, 0)


COUNTED = """  %limit = s32[]{:T(128)} constant(5)
  %turn = s32[]{:T(128)} get-tuple-element(%carry.1), index=0
  ROOT %more = pred[]{:T(512)} compare(%turn, %limit), direction=LT
}
"""


@pytest.mark.parametrize(
    "program",
    [
        PROGRAM.rstrip().removesuffix("}") + COUNTED,
        PROGRAM.replace(
            "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"},"x":1}'
        ),
    ],
)
def test_the_body_of_a_loop_whose_turns_are_told_counts_as_often(program):
    condition = traffic(read(program))["elementwise"].all - 5 * 3 * 64
    assert condition in (0, 5 * (4 + 4 + 1))
    assert repeated(read(program)) == (0, 4 * (3 * 64 + condition / 5))


def test_a_loops_operations_are_those_of_the_same_without_a_loop():
    def looped(x, kernels):
        def body(x, kernel):
            return jnp.tanh(conv(x, kernel, dilation=2)) @ kernel[0, 0], None

        return jax.lax.scan(body, x, kernels)[0]

    def unrolled(x, kernels):
        for kernel in kernels:
            x = jnp.tanh(conv(x, kernel, dilation=2)) @ kernel[0, 0]
        return x

    images, kernels = jnp.ones((2, 9, 9, 32)), jnp.ones((7, 3, 3, 32, 32))
    found = {}
    for f in (looped, unrolled):
        compiled = jax.jit(f).lower(images, kernels).compile()
        again, _ = repeated(read(compiled.as_text()))
        assert (again > 0) == (f is looped)
        found[f] = compiled.cost_analysis()["flops"] + again
    assert found[looped] == pytest.approx(found[unrolled], rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("bf16", "128,7", 1792),
        ("pred", "3", 3),
        ("f8e4m3fn", "5", 5),
        ("f32", "", 4),
        ("token", "", 0),
    ],
)
def test_the_size_of_an_array(dtype, shape, size):
    assert array_bytes(dtype, shape) == size


def test_a_program_of_this_machine_moves_its_arguments_and_results():
    def double(x):
        return 2 * x

    program = jax.jit(double).lower(jnp.zeros((64, 64))).compile().as_text()
    assert traffic(read(program)) == {"elementwise": Moved(2 * 64 * 64 * 4, 2 * 64 * 64 * 4)}
