"""`bpfc run`: the sample capture has 500 packets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bpfc.cli import fill
from bpfc.pcap import Packet, read_pcap
from ir.diagnostics import RejectedError
from tests.engines import require_emulator

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]

OBJECTS = Path(__file__).parents[3] / "objects"
VERDICTS = {"XDP_PASS": 387, "XDP_DROP": 82, "XDP_TX": 31}
OUT_OF_BOUNDS = "r1 = 1\nr0 = *(u64 *)(r1 + 0)\nexit\n"


def is_counted_ipv4(packet: Packet) -> bool:
    """Whether the sample counts the source of a packet: IPv4 behind at most two VLAN tags, with a whole header."""
    data, at = packet.data, 12
    while data[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and at < 20:
        at += 4
    return data[at : at + 2] == b"\x08\x00" and len(data) >= at + 22 and data[at + 2] & 15 >= 5


def test_verdicts_maps_and_variables_come_out(bpfc_json: RunJson, xdp: Path, pcap: Path) -> None:
    said = bpfc_json("run", xdp, "--pcap", pcap)
    assert said["verdicts"] == VERDICTS
    assert said["runs"] == 500
    assert said["globals"]["packets"]["value"] == 500
    sources = said["maps"]["sources"]
    assert len(sources["entries"]) == 38
    total = sum(entry["value"]["packets"] for entry in sources["entries"])
    assert total == sum(map(is_counted_ipv4, read_pcap(pcap)))
    protocols = {entry["key"]: sum(entry["value"]) for entry in said["maps"]["protocols"]["entries"]}
    assert protocols == {1: 24, 6: 279, 17: 120, 58: 16}
    assert said["timing"]["ns_per_run"] > 0


def test_people_read_addresses_and_sums(bpfc: Run, xdp: Path, pcap: Path) -> None:
    said = bpfc("run", xdp, "--pcap", pcap).stdout
    assert "  XDP_PASS  387   77.4 %\n" in said
    assert "    192.0.2.1: {packets: 30, bytes: 5622}\n" in said
    assert "    and 28 more (-v shows all)\n" in said
    assert "    6: 279\n" in said
    everything = bpfc("run", "-v", xdp, "--pcap", pcap).stdout
    assert "more (-v" not in everything
    assert "  blocked_port = 23\n" in everything


def test_many_native_runs_come_to_the_same(bpfc_json: RunJson, xdp: Path, pcap: Path) -> None:
    said = bpfc_json("run", xdp, "--pcap", pcap, "--batch", "--repeat", "3")
    assert said["verdicts"] == {name: 3 * count for name, count in VERDICTS.items()}
    assert said["globals"]["packets"]["value"] == 1500


@pytest.mark.parametrize("level", ["O0", "O1", "O3"])
def test_levels_agree(bpfc_json: RunJson, objects: Path, pcap: Path, level: str) -> None:
    said = bpfc_json("run", objects / "tc_classify.o", "--pcap", pcap, "--level", level)
    assert said["verdicts"] == {"TC_ACT_OK": 500}
    assert said["timing"]["level"] == level
    counts = [entry["value"] for entry in said["maps"]["classes"]["entries"]]
    assert counts == [209, 54, 97]


def test_a_constant_changes_what_is_dropped(bpfc_json: RunJson, xdp: Path, pcap: Path) -> None:
    said = bpfc_json("run", xdp, "--pcap", pcap, "--set", "blocked_port=80", "--set", "echo_port=0")
    assert "XDP_TX" not in said["verdicts"]
    assert said["verdicts"]["XDP_DROP"] != VERDICTS["XDP_DROP"]


def test_a_map_is_filled_from_a_file(bpfc_json: RunJson, objects: Path, pcap: Path, tmp_path: Path) -> None:
    before = bpfc_json("run", objects / "tc_classify.o", "--pcap", pcap)
    assert before["maps"]["blocklist"]["entries"] == []
    content = tmp_path / "blocklist.json"
    content.write_text(json.dumps([{"key": "198.51.100.1", "value": 1}]))
    said = bpfc_json("run", objects / "tc_classify.o", "--pcap", pcap, "--map", f"blocklist={content}")
    assert len(said["maps"]["blocklist"]["entries"]) == 1
    assert said["verdicts"]["TC_ACT_SHOT"] > 0


def test_what_a_run_leaves_in_a_map_can_be_put_back(
    bpfc_json: RunJson, xdp: Path, pcap: Path, tmp_path: Path
) -> None:
    first = bpfc_json("run", xdp, "--pcap", pcap)["maps"]
    paths = {name: tmp_path / f"{name}.json" for name in first}
    for name, path in paths.items():
        path.write_text(json.dumps(first[name]))
    fill = [word for name, path in paths.items() for word in ("--map", f"{name}={path}")]
    again = bpfc_json("run", xdp, "--data-in", "hex:", *fill)["maps"]
    assert again == first


@pytest.mark.parametrize("content", ["[1, 2]", "3", "{", '{"1.2.3": 1}', '{"192.0.2.1": {"nope": 1}}'])
def test_a_map_file_that_does_not_fit_is_refused(bpfc: Run, xdp: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "sources.json"
    path.write_text(content)
    assert bpfc("run", xdp, "--map", f"sources={path}").exit_code in (1, 3)


def test_packets_that_are_not_dropped_are_written(bpfc: Run, xdp: Path, pcap: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.pcap"
    assert bpfc("run", xdp, "--pcap", pcap, "--pcap-out", output).exit_code == 0
    assert len(list(read_pcap(output))) == VERDICTS["XDP_PASS"] + VERDICTS["XDP_TX"]


def test_a_socket_filter_drops_what_it_keeps_nothing_of(
    bpfc: Run, objects: Path, pcap: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.pcap"
    said = bpfc("run", objects / "socket_filter.o", "--pcap", pcap, "--pcap-out", output).stdout
    assert "  drop" in said
    assert len(list(read_pcap(output))) == 500 - 362


def test_one_packet_comes_as_hex_file_or_stdin(bpfc: Run, xdp: Path, tmp_path: Path) -> None:
    path = tmp_path / "packet"
    path.write_bytes(bytes(64))
    for source, stdin in ((f"hex:{'00' * 64}", None), (str(path), None), ("-", bytes(64))):
        said = bpfc("-j", "run", xdp, "--data-in", source, stdin=stdin)
        result = json.loads(said.stdout)["result"]
        assert (result["verdict"], result["data"]) == ("XDP_DROP", "00" * 64)


def test_a_run_is_traced_line_by_line(bpfc: Run, xdp: Path) -> None:
    said = bpfc("run", xdp, "--data-in", "hex:00", "--set", "debug=1", "--trace").stdout
    assert said == "     0      1 B  XDP_DROP\n        type 0, verdict 1\n"


def test_a_traced_run_is_a_stream_of_objects(bpfc: Run, xdp: Path, pcap: Path) -> None:
    lines = [
        json.loads(line) for line in bpfc("-j", "run", xdp, "--pcap", pcap, "--trace").stdout.splitlines()
    ]
    assert [line["schema"] for line in lines] == ["bpfc.run.packet/1"] * 500 + ["bpfc.run/1"]
    assert sum(line.get("verdict") == "XDP_TX" for line in lines) == 31


def test_a_context_field_is_set(bpfc_json: RunJson, objects: Path) -> None:
    said = bpfc_json(
        "run", objects / "tc_classify.o", "--data-in", "hex:0000", "--ctx", "mark=7", "--ctx", "tstamp=0x10"
    )
    assert said["result"]["ctx"]["mark"] == 7
    assert said["result"]["ctx"]["tstamp"] == 16


def test_a_run_that_ends_at_a_check_is_a_no(bpfc: Run, bpfc_json: RunJson, tmp_path: Path) -> None:
    source = tmp_path / "wild.s"
    source.write_text(OUT_OF_BOUNDS)
    said = bpfc_json("run", source, code=1)
    assert said["verdicts"] == {"trap: out-of-bounds": 1}
    assert said["traps"][0]["at"]["insn"] == 1
    assert "out-of-bounds" in bpfc("run", source).stdout


def test_raw_memory_gives_a_number(bpfc_json: RunJson, tmp_path: Path) -> None:
    source = tmp_path / "second.s"
    source.write_text("r0 = *(u8 *)(r1 + 1)\nexit\n")
    assert bpfc_json("run", source, "--data-in", "hex:01 2a")["result"]["ret"] == 42


def test_a_program_must_be_named_when_there_are_two(bpfc: Run, debian_objects: Path) -> None:
    (path,) = debian_objects.rglob("xdpdump_bpf.o")
    result = bpfc("run", path)
    assert result.exit_code == 2
    assert "name one program" in result.stderr


def test_debian_s_xdp_filters_run(bpfc_json: RunJson, debian_objects: Path, pcap: Path) -> None:
    paths = sorted(debian_objects.rglob("xdpfilt_*.o"))
    assert len(paths) == 10
    for path in paths[:3]:
        said = bpfc_json("run", path, "--pcap", pcap)
        counted = {entry["key"]: entry["value"] for entry in said["maps"]["xdp_stats_map"]["entries"]}
        numbers = {"XDP_ABORTED": 0, "XDP_DROP": 1, "XDP_PASS": 2}
        assert {numbers[name]: count for name, count in said["verdicts"].items()} == {
            key: sum(value["packets"] for value in values) for key, values in counted.items()
        }


def test_keys_and_values_are_written_in_many_ways(bpfc_json: RunJson, objects: Path, tmp_path: Path) -> None:
    path = tmp_path / "blocklist.json"
    entries = {"192.0.2.1": 1, "0x02": "0xff", "3": -1}
    for content in (entries, {"entries": [{"key": key, "value": value} for key, value in entries.items()]}):
        path.write_text(json.dumps(content))
        said = bpfc_json("run", objects / "tc_classify.o", "--map", f"blocklist={path}")
        found = {entry["key"]: entry["value"] for entry in said["maps"]["blocklist"]["entries"]}
        assert found == {0x010200C0: 1, 2: 255, 3: 0xFFFF_FFFF}


def test_a_map_without_types_takes_numbers_and_bytes(tmp_path: Path) -> None:
    encode = fill._encode
    assert encode(None, 0, 4, "258") == b"\2\1\0\0"
    assert encode(None, 0, 6, "020000000001") == b"\2\0\0\0\0\1"
    assert encode(None, 0, 3, [1, 2, 3]) == b"\1\2\3"
    assert encode(None, 0, 16, "2001:db8::1")[:4].hex() == "20010db8"
    assert encode(None, 0, 8, "10.0.0.0/8", is_prefix=True) == b"\x08\0\0\0\x0a\0\0\0"
    for wrong in ("0g", 1 << 32, [1, 2], None, 1.5):
        with pytest.raises(RejectedError):
            encode(None, 0, 4, wrong)


def test_a_member_of_a_variable_is_set(bpfc: Run, debian_objects: Path) -> None:
    (dispatcher,) = debian_objects.rglob("xdp-dispatcher.o")
    words = ("dump", "ir", dispatcher, "xdp_dispatcher", "--set")
    none, one = (bpfc(*words, f"conf.num_progs_enabled={count}").stdout for count in (0, 1))
    assert len(one) > len(none)
    assert "call subprogram" in one
    assert bpfc(*words, "conf.nope=1").exit_code == 2
    assert bpfc(*words, "conf.run_prios.3=1").exit_code == 0
    assert bpfc(*words, "conf.run_prios.10=1").exit_code == 2


def test_a_map_is_given_room(bpfc_json: RunJson, objects: Path) -> None:
    said = bpfc_json("run", objects / "tc_classify.o", "--resize", "blocklist=7")
    assert said["maps"]["blocklist"]["max_entries"] == 7


def test_a_map_is_given_larger_values(bpfc: Run, bpfc_json: RunJson, objects: Path) -> None:
    said = bpfc_json("run", objects / "tc_classify.o", "--resize", "blocklist=7:16")
    assert said["maps"]["blocklist"]["max_entries"] == 7
    assert bpfc("run", objects / "tc_classify.o", "--resize", "blocklist=7:x").exit_code == 2


@pytest.mark.parametrize("arch", ["riscv64", "ppc64le"])
def test_what_is_attached_and_replaced_runs_on_the_emulated_machine(bpfc_json: RunJson, arch: str) -> None:
    require_emulator(arch)
    given = OBJECTS / "hooked.o", "calls_g", "--ctx", "ingress_ifindex=130", "--arch", arch
    plain = bpfc_json("run", *given)
    replaced = bpfc_json("run", *given, "--replace", f"g={OBJECTS / 'replacements.o'}:returns_five")
    traced = bpfc_json("run", *given, "--attach", f"fentry:g={OBJECTS / 'tracers.o'}:all_at_entry")
    assert [list(said["verdicts"]) for said in (plain, replaced, traced)] == [["8"], ["5"], ["8"]]
    assert traced["attached"][0]["run_cnt"] == 1
