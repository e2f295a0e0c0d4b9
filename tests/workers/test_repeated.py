"""Tests from elsewhere in the tree, with two workers in each wgpy: what they check must not depend on the number.

Most of them have one peer, which the first worker serves. So whatever the kernel gives to the second one has to be
handed over, and a status or a change has to reach both.
"""

# ruff: noqa: F401 (pytest finds the imported tests here)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.test_apply import (
    test_a_default_route_comes_and_goes_with_its_mark_rules_and_guard,
    test_additions_and_removals_are_applied_while_traffic_passes,
    test_an_apply_that_fails_half_way_is_undone,
    test_without_listen_port_in_the_file_the_port_stays,
)
from tests.daemon.test_faults import (
    ends,
    test_a_change_to_a_port_in_use_keeps_the_old_port,
    test_a_changed_route_is_used,
    test_a_peer_whose_daemon_was_killed_comes_back,
    test_an_outer_address_that_is_removed_is_replaced_by_another,
    test_traffic_resumes_when_a_lost_carrier_comes_back,
)
from tests.daemon.test_observe import (
    test_events_are_lines_of_json,
    test_prometheus_reads_the_metrics,
    test_show_names_peers_and_stock_wg_can_still_read_the_status,
    test_wireshark_decrypts_a_capture_with_the_key_log,
)
from tests.daemon.test_serve import bare, test_20_it_follows_its_interface_into_another_namespace
from tests.interop.conftest import Cable, namespace_cable
from tests.interop.test_netns_configuration import (
    ours,
    test_16_a_get_answer_longer_than_a_buffer,
    test_17_single_prefixes_are_removed,
    test_18_nested_prefixes_are_replaced,
    test_18_peers_are_added_and_removed,
)
from tests.interop.test_netns_scenarios import (
    test_1_counters_are_exact,
    test_2_packets_of_34736_bytes,
    test_5_a_packet_with_a_forbidden_source_is_dropped_but_roaming_works,
    test_6_a_new_private_key_causes_a_new_handshake_at_once,
    test_7_a_tunnel_in_a_tunnel,
    test_8_a_routing_loop_ends,
    test_15_a_keepalive_is_sent_when_the_link_comes_up,
    test_19_nothing_is_sent_to_a_low_order_key,
)

pytestmark = pytest.mark.root


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    with namespace_cable(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGPY_WORKERS", "2")
