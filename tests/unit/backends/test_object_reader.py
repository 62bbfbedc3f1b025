"""Reading LLVM's objects: sections, symbols, relocations and every patch site."""

from __future__ import annotations

import pytest

from backends.machine import Level
from backends.native_code import UNDEFINED, Form, NativeCode, PatchSite, SiteKind
from backends.registry import target_named
from tests.native import DECLARE_BRANCH, branch_function, compile_text, invoke_branch

X86_64 = target_named("x86_64")
LEVELS = [Level.NONE, Level.FAST, Level.DEFAULT, Level.MOST]


def text_of(code: NativeCode) -> bytes:
    (section,) = (section for section in code.sections if section.is_executable)
    return section.data


def static_sites(code: NativeCode) -> list[PatchSite]:
    return [site for site in code.sites if site.kind is SiteKind.STATIC]


def test_only_what_runs_is_kept() -> None:
    text = """
    @constant = internal constant [4 x i64] [i64 1, i64 2, i64 3, i64 4]
    @variable = internal global i64 5
    @zeroed = internal global [100 x i64] zeroinitializer
    declare i64 @outside(ptr, ptr, ptr)
    define i64 @f() {
      %r = call i64 @outside(ptr @constant, ptr @variable, ptr @zeroed)
      ret i64 %r
    }
    """
    code = compile_text(text, X86_64)
    kept = {s.name: (s.size, len(s.data), s.is_executable, s.is_writable) for s in code.sections}
    assert kept.pop(".text")[2:] == (True, False)
    assert kept == {
        ".rodata": (32, 32, False, False),
        ".data": (8, 8, False, True),
        ".bss": (800, 0, False, True),
    }
    assert code.undefined == ("outside",)
    assert {r.type for r in code.relocations} == {"R_X86_64_PC32", "R_X86_64_PLT32"}


def test_symbols_say_where_functions_are() -> None:
    text = "define i64 @f() { ret i64 1 }\ndefine internal i64 @g() noinline { ret i64 2 }\n"
    code = compile_text(text + "define i64 @h() { %r = call i64 @g() ret i64 %r }", X86_64)
    f, h = code.symbol("f"), code.symbol("h")
    assert (f.section, f.is_global, f.is_function) == (h.section, True, True)
    assert text_of(code)[f.offset : f.offset + f.size] == bytes.fromhex("b801000000c3")
    with pytest.raises(KeyError):
        code.symbol("no such")


@pytest.mark.parametrize("level", LEVELS)
def test_a_static_branch_stands_where_one_store_can_change_it(level: Level) -> None:
    text = DECLARE_BRANCH + "".join(branch_function(f"f{i}", i, i, 100 + i) for i in range(10))
    code = compile_text(text, X86_64, level)
    sites = static_sites(code)
    assert sorted(site.key for site in sites) == list(range(10))
    for site in sites:
        assert text_of(code)[site.offset : site.offset + 5] == bytes.fromhex("0f1f440000")
        assert site.offset % 8 <= 3
        assert code.symbols[site.function].name == f"f{site.key}"


@pytest.mark.parametrize("level", LEVELS)
def test_a_static_branch_knows_where_it_goes(level: Level) -> None:
    text = f"""
    {DECLARE_BRANCH}
    define i64 @f() personality ptr @personality {{
      {invoke_branch(1)} to label %off unwind label %on
    off:
      ret i64 1
    on:
      %pad = landingpad {{ ptr, i32 }} cleanup
      ret i64 77
    }}
    """
    (site,) = static_sites(compile_text(text, X86_64, level))
    taken = text_of(compile_text(text, X86_64, level))[site.target_offset :]
    assert b"\xb8\x4d\x00\x00\x00" in taken  # mov eax, 77
    assert b"\xb8\x01\x00\x00\x00" not in taken


def test_a_branch_that_starts_as_a_jump_is_written_as_one() -> None:
    text = DECLARE_BRANCH + branch_function("f", 1, 3, 7) + branch_function("g", 2, 3, 7)
    sites = static_sites(compile_text(text, X86_64, jumps_first={2}))
    assert {site.key: site.first_form for site in sites} == {1: Form.NOP, 2: Form.JUMP}
    code = compile_text(text, X86_64, jumps_first={2})
    jumping = next(site for site in sites if site.key == 2)
    instruction = text_of(code)[jumping.offset : jumping.offset + 5]
    assert instruction[0] == 0xE9
    distance = int.from_bytes(instruction[1:], "little", signed=True)
    assert jumping.offset + 5 + distance == jumping.target_offset


def test_copies_by_inlining_are_sites_of_the_same_key() -> None:
    body = branch_function("callee", 9, 3, 7).replace("define i64", "define internal i64")
    body = body.replace(X86_64.prologue, "alwaysinline")
    calls = (
        "define i64 @f() { %a = call i64 @callee() %b = call i64 @callee() %c = add i64 %a, %b ret i64 %c }"
    )
    code = compile_text(DECLARE_BRANCH + body + calls, X86_64)
    assert [site.key for site in static_sites(code)] == [9, 9]
    assert {code.symbols[site.function].name for site in static_sites(code)} == {"f"}


def test_a_branch_whose_taken_side_can_not_be_reached_has_no_target() -> None:
    text = f"""
    {DECLARE_BRANCH}
    define i64 @f() personality ptr @personality {{
      {invoke_branch(1)} to label %off unwind label %on
    off:
      ret i64 1
    on:
      %pad = landingpad {{ ptr, i32 }} cleanup
      unreachable
    }}
    """
    assert [site.target_offset for site in static_sites(compile_text(text, X86_64))] in ([], [-1])


def test_patchable_functions_have_an_entry_site_and_others_none() -> None:
    text = f"""
    define i64 @hooked() {X86_64.prologue} {{
      ret i64 1
    }}
    define i64 @plain() {{
      ret i64 2
    }}
    """
    code = compile_text(text, X86_64)
    (site,) = code.sites
    assert (site.kind, code.symbols[site.function].name) == (SiteKind.ENTRY, "hooked")
    assert site.offset == code.symbol("hooked").offset
    assert site.offset % 8 == 0


def test_the_same_text_gives_the_same_bytes() -> None:
    text = DECLARE_BRANCH + branch_function("f", 1, 3, 7)
    assert compile_text(text, X86_64).to_bytes() == compile_text(text, X86_64).to_bytes()


def test_undefined_symbols_have_no_section() -> None:
    code = compile_text("declare i64 @g() define i64 @f() { %r = call i64 @g() ret i64 %r }", X86_64)
    assert code.symbol("g").section == UNDEFINED
