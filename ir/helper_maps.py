"""Which helpers take maps of which types (kernel/bpf/verifier.c, check_map_func_compatibility)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ir.helpers import Helper
from ir.kinds import MapType
from ir.object import Map

_M = MapType
# Helpers that take only maps of these types.
_MAPS_OF: Final[Mapping[str, tuple[MapType, ...]]] = {
    "tail_call": (_M.PROG_ARRAY,),
    "perf_event_read": (_M.PERF_EVENT_ARRAY,),
    "perf_event_output": (_M.PERF_EVENT_ARRAY,),
    "perf_event_read_value": (_M.PERF_EVENT_ARRAY,),
    "skb_output": (_M.PERF_EVENT_ARRAY,),
    "xdp_output": (_M.PERF_EVENT_ARRAY,),
    "ringbuf_output": (_M.RINGBUF,),
    "ringbuf_reserve": (_M.RINGBUF,),
    "ringbuf_query": (_M.RINGBUF,),
    "ringbuf_reserve_dynptr": (_M.RINGBUF,),
    "user_ringbuf_drain": (_M.USER_RINGBUF,),
    "get_stackid": (_M.STACK_TRACE,),
    "current_task_under_cgroup": (_M.CGROUP_ARRAY,),
    "skb_under_cgroup": (_M.CGROUP_ARRAY,),
    "redirect_map": (_M.DEVMAP, _M.DEVMAP_HASH, _M.CPUMAP, _M.XSKMAP),
    "sk_redirect_map": (_M.SOCKMAP,),
    "msg_redirect_map": (_M.SOCKMAP,),
    "sock_map_update": (_M.SOCKMAP,),
    "sk_redirect_hash": (_M.SOCKHASH,),
    "msg_redirect_hash": (_M.SOCKHASH,),
    "sock_hash_update": (_M.SOCKHASH,),
    "get_local_storage": (_M.CGROUP_STORAGE, _M.PERCPU_CGROUP_STORAGE),
    "sk_select_reuseport": (_M.REUSEPORT_SOCKARRAY, _M.SOCKMAP, _M.SOCKHASH),
    "map_pop_elem": (_M.QUEUE, _M.STACK),
    "map_peek_elem": (_M.QUEUE, _M.STACK, _M.BLOOM_FILTER),
    "map_push_elem": (_M.QUEUE, _M.STACK, _M.BLOOM_FILTER),
    "map_lookup_percpu_elem": (_M.PERCPU_ARRAY, _M.PERCPU_HASH, _M.LRU_PERCPU_HASH),
    "sk_storage_get": (_M.SK_STORAGE,),
    "sk_storage_delete": (_M.SK_STORAGE,),
    "inode_storage_get": (_M.INODE_STORAGE,),
    "inode_storage_delete": (_M.INODE_STORAGE,),
    "task_storage_get": (_M.TASK_STORAGE,),
    "task_storage_delete": (_M.TASK_STORAGE,),
    "cgrp_storage_get": (_M.CGRP_STORAGE,),
    "cgrp_storage_delete": (_M.CGRP_STORAGE,),
    "for_each_map_elem": (
        *(
            _M.HASH,
            _M.PERCPU_HASH,
            _M.LRU_HASH,
            _M.LRU_PERCPU_HASH,
            _M.ARRAY,
            _M.PERCPU_ARRAY,
            _M.HASH_OF_MAPS,
        ),
    ),
}
# Map types that only these helpers take.
_HELPERS_OF: Final[Mapping[MapType, tuple[str, ...]]] = {
    _M.PROG_ARRAY: ("tail_call",),
    _M.PERF_EVENT_ARRAY: (
        *("perf_event_read", "perf_event_output", "perf_event_read_value", "skb_output", "xdp_output"),
    ),
    _M.RINGBUF: (
        *("ringbuf_output", "ringbuf_reserve", "ringbuf_query", "ringbuf_reserve_dynptr"),
        *("ringbuf_submit_dynptr", "ringbuf_discard_dynptr"),
    ),
    _M.USER_RINGBUF: ("user_ringbuf_drain",),
    _M.STACK_TRACE: ("get_stackid",),
    _M.CGROUP_ARRAY: ("skb_under_cgroup", "current_task_under_cgroup"),
    _M.CGROUP_STORAGE: ("get_local_storage",),
    _M.PERCPU_CGROUP_STORAGE: ("get_local_storage",),
    _M.DEVMAP: ("redirect_map", "map_lookup_elem"),
    _M.DEVMAP_HASH: ("redirect_map", "map_lookup_elem"),
    _M.CPUMAP: ("redirect_map",),
    _M.XSKMAP: ("redirect_map", "map_lookup_elem"),
    _M.ARRAY_OF_MAPS: ("map_lookup_elem",),
    _M.HASH_OF_MAPS: ("map_lookup_elem", "for_each_map_elem"),
    _M.SOCKMAP: (
        *("sk_redirect_map", "sock_map_update", "msg_redirect_map", "sk_select_reuseport", "map_lookup_elem"),
        *("map_update_elem", "map_delete_elem"),
    ),
    _M.SOCKHASH: (
        *(
            "sk_redirect_hash",
            "sock_hash_update",
            "msg_redirect_hash",
            "sk_select_reuseport",
            "map_lookup_elem",
        ),
        *("map_update_elem", "map_delete_elem"),
    ),
    _M.REUSEPORT_SOCKARRAY: ("sk_select_reuseport",),
    _M.QUEUE: ("map_peek_elem", "map_pop_elem", "map_push_elem"),
    _M.STACK: ("map_peek_elem", "map_pop_elem", "map_push_elem"),
    _M.BLOOM_FILTER: ("map_peek_elem", "map_push_elem"),
    _M.SK_STORAGE: ("sk_storage_get", "sk_storage_delete"),
    _M.INODE_STORAGE: ("inode_storage_get", "inode_storage_delete"),
    _M.TASK_STORAGE: ("task_storage_get", "task_storage_delete"),
    _M.CGRP_STORAGE: ("cgrp_storage_get", "cgrp_storage_delete"),
    _M.INSN_ARRAY: (),
}
_EVERYWHERE: Final = ("spin_lock", "spin_unlock")


def map_problem(helper: Helper, map: Map) -> str:
    """Why the helper does not take the map, by their types; nothing when it does."""
    wanted = _MAPS_OF.get(helper.name)
    if wanted is not None and map.type not in wanted:
        names = " or ".join(type.name for type in wanted)
        return f"{helper.full_name} takes a {names} map, '{map.name}' is {map.type.name}"
    only = _HELPERS_OF.get(map.type)
    if only is not None and helper.name not in only and helper.name not in _EVERYWHERE:
        return f"{helper.full_name} does not take {map.type.name} maps such as '{map.name}'"
    return ""
