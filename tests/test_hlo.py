"""Reading the text of a compiled program."""

import pytest

from benchmarks import hlo


def line(name, type_, call, cycles=None, path="", more=""):
    estimate = f'"estimated_cycles":"{cycles}"' if cycles else ""
    where = f', metadata={{op_name="{path}"}}' if path else ""
    return f"  %{name} = {type_} {call}{more}{where}, backend_config={{{estimate}}}"


TRIPS = ', backend_config={"known_trip_count":{"n":"5"}}'
TEXT = "\n".join(
    [
        "HloModule made_up",
        "%fused_dot (p: f32[2]) -> f32[2] {",
        line("inner.1", "f32[2]{0}", "convolution(%p, %p)", 999),
        "}",
        "",
        "%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {",
        line(
            "in_loop",
            "f32[8]{0}",
            "copy(%b)",
            100,
            "jit(f)/Model.merge/jit(paste)/gather",
        ),
        "}",
        "",
        "%large (d: f32[2]) -> f32[2] {",
        line("chosen", "f32[2]{0}", "copy(%d)", 70, "jit(f)/Model.fine_stage/copy"),
        "}",
        "",
        "%small (c: f32[2]) -> f32[2] {",
        line("not_chosen", "f32[2]{0}", "copy(%c)", 7),
        "}",
        "",
        "%fused_gather (l: f32[2]) -> f32[2] {",
        "  ROOT %g = f32[2]{0} gather(%l, %l), offset_dims={0}",
        "}",
        "",
        "ENTRY %main (x: bf16[4,3]) -> f32[2] {",
        "  %x = bf16[4,3]{1,0:T(8,128)(2,1)} parameter(0)",
        line(
            "conv",
            "f32[2]{0}",
            "fusion(%x)",
            1000,
            "f/Model.coarse_stage/dot",
            ", calls=%fused_dot",
        ),
        line("loop", "(s32[], f32[8]{0})", "while(%x), condition=%until, body=%body") + TRIPS,
        line("open", "(s32[], f32[8]{0})", "while(%x), condition=%until, body=%body"),
        line("choice", "f32[2]{0}", "conditional(%x), branch_computations={%small, %large}"),
        line("read", "f32[2]{0}", "fusion(%x), calls=%fused_gather"),
        line("sum.1", "(bf16[4,3]{1,0}, u32[])", "all-reduce-start(%x, %conv), to_apply=%add"),
        "  %sum.2 = bf16[4,3]{1,0} all-reduce-done(%sum.1)",
        "}",
    ]
)


@pytest.fixture(scope="module")
def found():
    return hlo.operations(TEXT)


def test_cycles_by_stage_and_kind_of_executed_operations(found):
    assert hlo.cycles_by(found, "stage") == {"coarse": 1000, "paste": 5 * 100 + 100, "fine": 70}
    assert hlo.cycles_by(found, "kind") == {"convolution": 1000, "copy": 670}


def test_loops_of_unknown_length_are_marked(found):
    assert [(o.cycles, o.uncounted) for o in found if o.name == "in_loop"] == [
        (500, False),
        (100, True),
    ]


def test_operations_without_an_estimate_and_exchanged_bytes_are_counted(found):
    assert hlo.without_estimate(found) == {"gather": 1, "all-reduce": 1}
    assert {o.name: o.exchanged for o in found if o.exchanged} == {"sum.1": 4 * 3 * 2 + 2 * 4}


def test_text_of_another_program_raises():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.operations("module @jit_f {\n}\n")
