"""Celery's settings for this fleet: the one file to edit.

Every `celery -A osml_tasks` and `osml-tasks` command that finds this file in its directory takes it over the
package's own settings, which it repeats as they are: https://docs.celeryq.dev/en/stable/userguide/configuration.html.
The variables CELERY_BROKER_URL and CELERY_RESULT_BACKEND go before both.
"""

from kombu import Exchange, Queue

# Where it all is.
broker_url = "redis://127.0.0.1:6379/0"  # messages; Redis 6.2 or newer, Valkey, or RabbitMQ (amqp://)
# result_backend = "redis://127.0.0.1:6379/0"  # state of jobs: by default with the messages; beside RabbitMQ a must
broker_connection_retry_on_startup = True  # a worker may start before its broker
broker_transport_options = {  # each broker takes its own, and leaves the other's
    "global_keyprefix": "{osml}:",  # Redis: all keys in one slot, for its cluster mode; the same for all, callers too
    "visibility_timeout": 90,  # Redis: s until what a dead worker held comes back; at least 90
    "unacked_restore_throttle": 1,  # Redis: it is looked for every 10 s, not every 100 s
    "confirm_publish": True,  # RabbitMQ: a message counts as sent once the broker has it
}
result_backend_transport_options = {"global_keyprefix": "{osml}:"}  # the same for what is kept of results

# Which worker does what. A worker's concurrency is on its command line: `-c`, or ASYNC_SM_SUBMISSION_WORKERS
# and ASYNC_SM_POLLING_WORKERS where `osml-tasks worker` starts it.
task_queues = [  # one a step
    Queue(name, Exchange("osml"), routing_key=name)
    for name in ("osml.submit", "osml.poll", "osml.assemble", "osml.cleanup")
]
task_default_exchange = "osml"  # of RabbitMQ, where a caller of another language finds the queues by their names
task_routes = {  # which step goes to which queue: clients and workers rely on it
    "osml_tasks.detect": {"queue": "osml.submit"},
    "osml_tasks.submit": {"queue": "osml.submit"},
    "osml_tasks.poll": {"queue": "osml.poll"},
    "osml_tasks.assemble": {"queue": "osml.assemble"},
    "osml_tasks.cleanup": {"queue": "osml.cleanup"},
}
task_default_queue = "osml.cleanup"  # where a task of no route goes: one that a worker serves
task_create_missing_queues = False  # a misspelt queue is an error, not a queue that nobody serves
worker_prefetch_multiplier = 1  # a busy worker keeps no message from an idle one
worker_eta_task_limit = None  # countdowns do not count: few wait, and an idle worker is to take what is due now

# Nothing is lost.
task_acks_late = True  # a message is done when its work is
task_reject_on_worker_lost = True  # and comes back when the process that did it was killed
worker_cancel_long_running_tasks_on_connection_loss = False  # what is at work ends, though the broker is away
task_publish_retry_policy = {  # a broker that restarts is waited for, 45 s: a step that cannot send the next is lost
    "max_retries": 12,
    "interval_start": 0,
    "interval_step": 1,
    "interval_max": 5,
}
result_expires = 7 * 24 * 3600  # s; a chord counts its shards in keys that must outlive the longest job
beat_schedule = {  # what is due, lost, or left by the dead: every 30 s. It expires by beat's clock, which may be wrong
    "sweep": {"task": "osml_tasks.cleanup", "schedule": 30.0, "options": {"expires": 3600}},
}

# Nobody gets in.
task_serializer = "json"  # messages are data
result_serializer = "json"  # and so are results
accept_content = ["json"]  # anything else is refused: pickle would run a stranger's code
worker_consumer = "osml_tasks.admission:Consumer"  # and so is what this program would not write itself
# broker_use_ssl = {"ssl_ca_certs": "/etc/osml-tasks/ca.pem"}  # rediss:// of a certificate authority of your own
# redis_backend_use_ssl = broker_use_ssl  # the same for the state; a certificate is checked in any case

# What Flower sees.
worker_send_task_events = True  # five small events a step of a shard
task_send_sent_event = True  # with the queue that a task went to
