"""An operator's settings for a broker under Sentinel, as docs/operations.md gives them."""

broker_transport_options = {
    "global_keyprefix": "{osml}:",
    "visibility_timeout": 90,
    "unacked_restore_throttle": 1,
    "master_name": "osml",
}
result_backend_transport_options = {"global_keyprefix": "{osml}:", "master_name": "osml"}
